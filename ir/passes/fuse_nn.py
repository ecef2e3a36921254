"""fuse-nn: every fusion, in the order in which they build on each other. An alias, not a pass."""

from __future__ import annotations

from focusc.ir.passes.manager import defpipeline

FUSE_NN = defpipeline(
    "fuse-nn",
    "canonicalise,fold-constants,fuse-layer-norm,fuse-rms-norm,fuse-gelu,fuse-swiglu,fuse-linear,fuse-embed,"
    "fuse-windows,fuse-patch-embed,fuse-rope,canonicalise,fuse-attention,canonicalise,split-packed,fuse-linear,"
    "canonicalise,batch-windows,fuse-updates,canonicalise,narrow-slices,fold-constants,canonicalise",
    "tensor dialect to nn dialect",
)
