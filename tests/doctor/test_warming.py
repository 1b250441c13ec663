import subprocess
import sys

# In a process of its own: into this one, earlier tests have loaded kernels, which are among a process's mapped files.
CODE = """
import dataclasses, re
from pathlib import Path
import numpy as np
from medsegdiff.config.run import RunConfig
from medsegdiff.config.sampling import SamplingConfig
from medsegdiff.inference.jittor_denoiser import JittorDenoiser
from medsegdiff.inference.segmenter import BatchSegmenter
from medsegdiff.config.training import TrainingConfig
from medsegdiff.training.dry_run import noise_batch
from medsegdiff.training.trainer import Trainer
from medsegdiff.doctor.warming import WARMINGS
from medsegdiff.config.network import NetworkConfig
from medsegdiff.nn.versions import build_network

def kernels():
    return set(re.findall(r"/jit/(.+\\.so)$", Path("/proc/self/maps").read_text(), re.MULTILINE))

config = RunConfig(NetworkConfig(image_size=32, num_channels=32, channel_mult="1,1", attention_resolutions="16"))
# As many blocks: the sum of their gradients of the timestep's embedding is one kernel.
larger = RunConfig(dataclasses.replace(config.network, image_size=64, attention_resolutions="32"),
                   training=TrainingConfig(batch_size=3))
before = kernels()
for warm in WARMINGS.values():
    warm(config)
warmed = kernels()
assert len(warmed - before) > 50, warmed

denoiser = JittorDenoiser(build_network(larger.network).initialise().only_segment())
segmenter = BatchSegmenter(denoiser, larger.diffusion, SamplingConfig(members=3, steps=2, batch_size=4))
list(segmenter.segment("abc", lambda i: np.zeros((3, 64, 64), np.float32)))
trainer = Trainer(larger)
for step in range(2):
    trainer.train_step(noise_batch(larger, step))
print(sorted(kernels() - warmed))
"""


def test_later_runs_find_all_their_kernels():
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "[]\n"
