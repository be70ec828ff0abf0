"""The page: what is where, and what happens on a click."""

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from apps.demo import answering, batch, showcase
from apps.demo.catalogue import WORKSPACE, Catalogue
from apps.demo.limits import Limits
from apps.demo.rendering import render
from intents.texts import is_empty

THEME = gr.themes.Default(
    primary_hue="emerald",
    neutral_hue="slate",
    radius_size="lg",
    font=["system-ui", "sans-serif"],
    font_mono=["ui-monospace", "monospace"],
).set(
    body_background_fill="*neutral_50",
    body_text_color_subdued="*neutral_500",
    block_info_text_color="*neutral_500",
    block_title_text_color="*body_text_color",
    block_title_text_weight="600",
    # White letters on the hue's usual shade have a contrast of 2.5; on this one of 5.5.
    button_primary_background_fill="*primary_700",
    button_primary_background_fill_hover="*primary_800",
)
# Clicking a chooser selects its text, so that typing a revision's name replaces it; leaving one by Tab closes its list,
# which gradio leaves open over what lies beneath; screen readers say the answers.
ON_LOAD = """() => {
    const chooser = (event) => event.target.closest("#first, #second") && event.target;
    document.addEventListener("focusin", (event) => chooser(event)?.select?.());
    document.addEventListener("focusout",
        (event) => chooser(event)?.dispatchEvent(new KeyboardEvent("keydown", {key: "Escape", bubbles: true})));
    for (const name of ["answers", "summary"]) document.getElementById(name)?.setAttribute("aria-live", "polite");
}"""
_NOBODY = ""
# Events wait for one another only within a lane: a long file does not hold up those who type.
_QUESTIONS: dict[str, Any] = {"concurrency_id": "questions", "api_visibility": "private"}
# One at a time; those that choose what is here already pass the others by.
_DOWNLOADS: dict[str, Any] = {"concurrency_id": "downloads", "concurrency_limit": 4, "api_visibility": "private"}


@dataclass(frozen=True)
class Desk:
    """Where questions are asked: the classifiers, the limits, the threshold of uncalibrated classifiers.

    And what the texts are: a title for the page, an example, and the column that usually holds them in a file.
    """

    catalogue: Catalogue
    limits: Limits
    threshold: float
    title: str
    example: str
    text_column: str

    def ask(self, text: str, name: str) -> answering.Answer:
        """Return the answer of the classifier called `name`; raises ValueError where there is none."""
        checked = self.limits.check_text(text)
        return answering.answer(self.catalogue.load(name), checked, self.threshold)

    def fetch(self, first: str | None, second: str | None) -> str:
        """Bring the chosen classifiers here; return what is wrong with one of them, if anything."""
        try:
            for name in _names(first, second):
                self.catalogue.fetch(name)
        except (ValueError, OSError) as error:
            return _sentence(error)
        return ""

    def show_answers(self, text: str | None, first: str | None, second: str | None, problem: str = "") -> str:
        """Return the answers of one or two classifiers as HTML, or the `problem` with one of them."""
        if problem:
            return render("answers", problem=problem)
        if is_empty(text or ""):
            return render("answers", answers=[])
        try:
            answers = [self.ask(str(text), name) for name in _names(first, second)]
        except (ValueError, OSError) as error:
            return render("answers", problem=_sentence(error))
        return render("answers", answers=answers, text=str(text).strip())

    def show_matrices(self, first: str | None, second: str | None) -> str:
        """Return the confusion matrices of one or two classifiers as HTML."""
        try:
            matrices = [
                (name, showcase.confusion_of(self.catalogue.predictions_path(name))) for name in _names(first, second)
            ]
        except (ValueError, OSError) as error:
            return render("matrices", problem=_sentence(error))
        return render("matrices", matrices=matrices)

    def answer_upload(
        self,
        upload: str | None,
        column: str,
        first: str | None,
        progress: gr.Progress = gr.Progress(),  # noqa: B008
    ) -> tuple[str, Any]:
        """Return the summary of an uploaded file as HTML, and the button that downloads its answers."""
        started = time.perf_counter()
        try:
            if not upload:
                raise ValueError("there is no file yet; choose a CSV file first")
            loaded = self.catalogue.load(first or WORKSPACE)
            folder = Path(tempfile.mkdtemp(dir=gr.utils.get_upload_folder()))
            target = folder / f"{Path(upload).stem[:80]}-answered.csv"
            result = batch.answer_file(Path(upload), target, loaded, column, self.limits, self.threshold, progress)
        except (ValueError, OSError) as error:
            return render("batch", problem=_sentence(error)), gr.DownloadButton(visible=False)
        summary = render(
            "batch",
            classifier=loaded.name,
            result=result,
            answered=result.rows - result.failed,
            seconds=time.perf_counter() - started,
        )
        return summary, gr.DownloadButton(value=str(target), visible=True)


def build_page(desk: Desk, url: str) -> gr.Blocks:
    """Return the page; `url` is where it is served, for the examples of the REST call."""
    limits = desk.limits
    with gr.Blocks(title=desk.title, analytics_enabled=False, delete_cache=(600, 3600)) as page:
        gr.HTML(render("masthead", title=desk.title))
        with gr.Row():
            first, second = _choosers(desk)
        problem = gr.State("")
        chosen = gr.on([first.change, second.change], desk.fetch, [first, second], problem, **_DOWNLOADS)
        with gr.Tab("Try it"):
            _try_tab(desk, first, second, chosen, problem)
        with gr.Tab("A whole file"):
            _batch_tab(desk, first)
        with gr.Tab("How good is it?") as matrix_tab:
            matrices = gr.HTML()
        with gr.Tab("From a program"):
            gr.HTML(render("rest", url=url, limits=limits, example=desk.example))
        for event in (matrix_tab.select, chosen.then):
            event(desk.show_matrices, [first, second], matrices, **_QUESTIONS)
        page.load(lambda: _choices(desk), None, [first, second], show_progress="hidden", **_QUESTIONS)
    # Mounted, not launched, gradio would let a client name any file of this machine as one that it has uploaded.
    page.has_launched = True
    page.queue(max_size=limits.queue, default_concurrency_limit=limits.concurrency)
    return page


def _choosers(desk: Desk) -> tuple[gr.Dropdown, gr.Dropdown]:
    choices = desk.catalogue.choices()
    first = gr.Dropdown(
        choices,
        value=WORKSPACE,
        label="Classifier",
        info="or type the name of a branch, tag, commit or experiment",
        allow_custom_value=True,
        elem_id="first",
    )
    second = gr.Dropdown(
        [("nobody", _NOBODY), *choices],
        value=_NOBODY,
        label="Side by side with",
        info="the same question to a second classifier",
        allow_custom_value=True,
        elem_id="second",
    )
    return first, second


def _choices(desk: Desk) -> tuple[Any, Any]:
    choices = desk.catalogue.choices()
    return gr.Dropdown(choices=choices), gr.Dropdown(choices=[("nobody", _NOBODY), *choices])


def _try_tab(desk: Desk, first: gr.Dropdown, second: gr.Dropdown, chosen: Any, problem: gr.State) -> None:
    """Fill the tab; `chosen` is the event that a classifier was chosen and, unless there is a `problem`, fetched."""
    text = gr.Textbox(
        label="Text",
        placeholder=desk.example,
        submit_btn="Ask",
        max_lines=1,
        autofocus=True,
        elem_id="text",
    )
    answers = gr.HTML(render("answers", answers=[]), elem_id="answers")
    # The browser cuts a text that is too long, one character past the limit: the same message, without the wait.
    cut = f"(text, ...others) => [(text || '').slice(0, {desk.limits.characters + 1}), ...others]"
    asked: dict[str, Any] = {
        "fn": desk.show_answers,
        "inputs": [text, first, second],
        "outputs": answers,
        "js": cut,
        **_QUESTIONS,
    }
    text.submit(**asked)
    chosen.then(**asked | {"inputs": [text, first, second, problem]})
    with gr.Row(elem_classes="examples"):
        for group, texts in _example_groups(desk).items():
            with gr.Column(min_width=400):
                examples = gr.Dataset(label=group, components=["textbox"], samples=[[example] for example in texts])
                examples.click(lambda row: row[0], examples, text, show_progress="hidden", **_QUESTIONS).then(**asked)


def _batch_tab(desk: Desk, first: gr.Dropdown) -> None:
    limits = desk.limits
    with gr.Row():
        upload = gr.File(
            label=f"CSV file, at most {limits.upload_bytes / 2**20:g} MiB and {limits.rows:,} rows",
            file_types=[".csv"],
            elem_id="upload",
            height=190,
        )
        with gr.Column():
            column = gr.Textbox(desk.text_column, label="Column that holds the texts", max_length=200, elem_id="column")
            start = gr.Button("Answer all rows", variant="primary", elem_id="start")
    summary = gr.HTML(elem_id="summary")
    download = gr.DownloadButton("Download the answers", visible=False, elem_id="download")
    start.click(
        desk.answer_upload,
        [upload, column, first],
        [summary, download],
        concurrency_id="files",
        concurrency_limit=1,
        api_visibility="private",
    )


def _example_groups(desk: Desk) -> dict[str, list[str]]:
    try:
        return showcase.examples_of(desk.catalogue.predictions_path(WORKSPACE))
    except ValueError:  # nothing evaluated yet: the page does without examples
        return {}


def _names(first: str | None, second: str | None) -> list[str]:
    return [name.strip() for name in (first or WORKSPACE, second) if name and name.strip()]


def _sentence(error: Exception) -> str:
    message = str(error)
    return message[0].upper() + message[1:] + "."
