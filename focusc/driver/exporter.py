"""Export of a torch model to ONNX, with the errors of the exporter as messages."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from focusc.driver.errors import InputError
from focusc.driver.files import write_error
from focusc.driver.progress import Progress, silent

if TYPE_CHECKING:
    from focusc.export import ExportReport


def export(
    model: str,
    output: str | os.PathLike[str],
    *,
    opset: int = 20,
    progress: Progress = silent,
) -> ExportReport:
    """Write `model` ("demo") as one static ONNX graph, pixel values and token ids to logits.

    The token layout goes into the file's metadata; the file is compared with torch on onnxruntime, and the report says
    how well they agree. Raises InputError for an unknown model, an opset below 20 or a file that cannot be written.
    """
    import focusc.export as exporters

    progress("export and compare with torch", 0, 1)
    try:
        report = exporters.export(model, Path(output), opset=opset)
    except exporters.ExportError as error:
        raise InputError("export.model", str(error)) from error
    except OSError as error:
        raise write_error(output, error) from error
    progress("export and compare with torch", 1, 1)
    return report
