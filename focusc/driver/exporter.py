"""Export of a torch model to ONNX, with the errors of the exporter as messages."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from focusc.driver.errors import InputError
from focusc.driver.files import check_outputs, write_error
from focusc.driver.progress import Progress, silent

if TYPE_CHECKING:
    from focusc.export import ExportReport
    from focusc.export.samples import Request
    from focusc.export.vlm import VlmReport


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
        raise InputError(error.code, str(error), where=error.where, hint=error.hint) from error
    except OSError as error:
        raise write_error(output, error) from error
    progress("export and compare with torch", 1, 1)
    return report


def vlm_request(**given: Any) -> Request:
    """What a VLM is to be shown; see `focusc.export.samples.Request`. Raises InputError `export.options`."""
    from focusc.export.errors import ExportError
    from focusc.export.samples import Request

    try:
        return Request(**given)
    except ExportError as error:
        raise InputError(error.code, str(error), hint=error.hint) from error


def export_vlm(
    source: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    request: Request,
    opset: int = 23,
    random_weights: int | None = None,
    weights: bool = True,
    progress: Progress = silent,
) -> VlmReport:
    """Write the prefill of a transformers VLM, a checkpoint directory or a config.json, as one static ONNX graph.

    See `focusc.export.vlm.export_vlm`. Raises InputError `export.*` for everything that is wrong with what was given,
    and for models that cannot be traced.
    """
    from focusc.export.errors import ExportError
    from focusc.export.vlm import export_vlm as run

    sample = Path(output).with_suffix(".npz")
    given = {f"--{name}": getattr(request, name) for name in ("image", "video", "tokens", "pixels")}
    check_outputs({"-o": output, "-o (the sample)": sample}, {"the model": source, **given})
    try:
        return run(os.fspath(source), Path(output), request=request, opset=opset, random_weights=random_weights,
                   weights=weights, progress=progress)
    except ExportError as error:
        raise InputError(error.code, str(error), where=error.where, hint=error.hint) from error
    except OSError as error:
        raise write_error(output, error) from error
