"""The operations on a CPU."""

from medsegdiff.kernels.cpu.attention import attention
from medsegdiff.kernels.cpu.band_pass import band_pass
from medsegdiff.kernels.cpu.blur import blur
from medsegdiff.kernels.cpu.channels import channel_map, channel_sums
from medsegdiff.kernels.cpu.convolution import conv2d
from medsegdiff.kernels.cpu.linear import linear
from medsegdiff.kernels.cpu.maps import join, upsample_nearest
from medsegdiff.kernels.cpu.normalisation import batch_norm, group_norm
from medsegdiff.kernels.cpu.product import mixed, product
from medsegdiff.kernels.cpu.spectrum import spectral_attention
from medsegdiff.kernels.cpu.update import adamw, approach, sum_of_squares

NAME = "cpu"
PACKS = True
BY_SAMPLE = True
