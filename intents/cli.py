"""How every command of the project ends when its user made a mistake."""

import sys
from collections.abc import Callable


def run(main: Callable[[], None]) -> None:
    """Call `main`; a mistake of the user, a full disk or Ctrl-C ends in one message and a non-zero exit code.

    A bug (any other exception) keeps its traceback.
    """
    try:
        main()
    except (ValueError, OSError) as error:
        sys.stderr.write(f"error: {error}\n")
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        raise SystemExit(130) from None
