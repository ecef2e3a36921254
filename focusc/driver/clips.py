"""Samples from a clip of the user's, through a model's own preprocessing."""

from __future__ import annotations

import os
from pathlib import Path

from focusc.driver.comparison import Sample
from focusc.driver.errors import InputError
from focusc.driver.files import existing
from focusc.export.evaluation import Evaluation


def clip_samples(evaluation: Evaluation, video: str | os.PathLike[str]) -> list[Sample]:
    """The model's questions about a clip; no answer is known. InputError if the file is no clip or too short."""
    from focusc.export.errors import ExportError
    from focusc.export.media import read_video

    file = existing(video, "clip")
    frames = evaluation.clip_frames()
    try:
        pictures = read_video(Path(file), frames)
    except ExportError as error:
        hint = f"the {evaluation.name} model takes {frames} frames" if error.code == "export.frames" else error.hint
        raise InputError(error.code, str(error), where=error.where, hint=hint) from error
    return [Sample(question.inputs, question.answer, question.text) for question in evaluation.ask_clip(pictures)]
