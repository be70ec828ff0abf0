"""Runs an experiment with the settings of a file in recipes/, which holds what differs from params.yaml.

python -m apps.recipe                                     the recipes there are
python -m apps.recipe bert-base-full                      dvc exp run -n bert-base-full -S ...
python -m apps.recipe bert-base-full --show               the command alone, to copy
python -m apps.recipe bert-base-full --queue -n again -S train.seed=1    more options of dvc exp run
"""

import argparse
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from intents.cli import run
from intents.params import read_params

RECIPES_DIR = Path("recipes")


def overrides(path: Path, params: dict[str, Any]) -> list[str]:
    """Return the settings in the recipe at `path` as `dvc exp run -S` takes them.

    Raises:
        ValueError: the recipe is no mapping of sections, or `params` lacks one of its settings.

    """
    found: list[str] = []
    for section, settings in read_params(path).items():
        if section not in params:
            raise ValueError(f"{path}: params.yaml has no section {section!r}; it has: {', '.join(params)}")
        if not isinstance(settings, dict):
            raise ValueError(f"{path}: {section} must hold settings, found {settings!r}")
        for name, value in settings.items():
            if name not in params[section]:
                raise ValueError(
                    f"{path}: {section}.{name}: unknown setting; {section} has: {', '.join(params[section])}"
                )
            found += _override(f"{section}.{name}", value, params[section][name])
    return found


def _override(name: str, value: Any, present: Any) -> Iterator[str]:
    """Yield the override of a setting, or of each entry of one that is a mapping: + marks those that are new."""
    if not isinstance(value, dict):
        yield f"{name}={_literal(value)}"
        return
    known = present if isinstance(present, dict) else {}
    missing = [str(key) for key in known if key not in value]
    if missing:
        raise ValueError(f"{name}: params.yaml has {', '.join(missing)} there, which -S cannot take away; name it, too")
    for key, entry in value.items():
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_-]*|\d+", str(key)) or isinstance(entry, dict):
            raise ValueError(f"{name}: -S cannot name {key!r}; set it in params.yaml")
        yield f"{'' if key in known else '+'}{name}.{key}={_literal(entry)}"


def _literal(value: Any) -> str:
    """Return `value` in the grammar of -S; strings are quoted, since 12e4 may be half a commit and a comma a list."""
    if isinstance(value, list):
        return f"[{','.join(map(_literal, value))}]"
    if isinstance(value, str):
        if "${" in value:
            raise ValueError(f"{value!r}: -S takes ${{ for the name of another setting; set it in params.yaml")
        # Backslashes count only before a quote, the closing one among them.
        escaped = re.sub(r"(\\*)'", r"\1\1\\'", value)
        return "'" + re.sub(r"(\\+)$", r"\1\1", escaped) + "'"
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def command(name: str, options: Sequence[str]) -> list[str]:
    """Return the dvc command of the recipe `name`; `options` are further ones of `dvc exp run` and win.

    Raises:
        ValueError: there is no such recipe, or it has unknown settings.

    """
    path = RECIPES_DIR / f"{name}.yaml"
    if not path.is_file():
        names = ", ".join(path.stem for path in _recipes()) or "none"
        raise ValueError(f"{RECIPES_DIR} has no recipe {name!r}; it has: {names}")
    named = any(option in ("-n", "--name") or option.startswith("--name=") for option in options)
    settings = [part for override in overrides(path, read_params()) for part in ("-S", override)]
    return ["dvc", "exp", "run", *([] if named else ["-n", name]), *settings, *options]


def _recipes() -> Iterator[Path]:
    if not RECIPES_DIR.is_dir():
        raise ValueError(f"{RECIPES_DIR} does not exist: run this from the root of the repository")
    yield from sorted(RECIPES_DIR.glob("*.yaml"))


def main() -> None:
    """Read the command line and run the recipe."""
    parser = argparse.ArgumentParser(
        prog="python -m apps.recipe",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("recipe", nargs="?", help="name of a file in recipes/, without .yaml")
    parser.add_argument("--show", action="store_true", help="print the dvc command and run nothing")
    arguments, options = parser.parse_known_args()
    if arguments.recipe is None:
        for path in _recipes():
            first = path.read_text(encoding="utf-8", errors="replace").partition("\n")[0]
            print(f"{path.stem:20} {first.removeprefix('# ')}")
        return
    dvc = command(arguments.recipe, options)
    print(shlex.join(dvc), flush=True)
    if not arguments.show:
        with subprocess.Popen([sys.executable, "-m", *dvc]) as process:
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches dvc as well, which ends in its own time
            raise SystemExit(process.wait())


if __name__ == "__main__":
    run(main)
