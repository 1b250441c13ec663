"""The operations on a GPU: fused kernels, and plain expressions for what Jittor and NVIDIA's libraries do as well."""

from medsegdiff.kernels.cuda.attention import attention, spectral_attention
from medsegdiff.kernels.cuda.convolution import conv2d
from medsegdiff.kernels.cuda.linear import linear, product
from medsegdiff.kernels.cuda.normalisation import batch_norm, group_norm
from medsegdiff.kernels.cuda.update import adamw, approach, sum_of_squares
from medsegdiff.kernels.reference import band_pass, blur, channel_map, channel_sums, join, mixed, upsample_nearest

NAME = "cuda"
PACKS = False
BY_SAMPLE = False
