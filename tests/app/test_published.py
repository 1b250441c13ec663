import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from medsegdiff.app import evaluate as evaluate_command
from medsegdiff.app import published
from medsegdiff.app import sample as sample_command
from medsegdiff.app import train as train_command
from medsegdiff.base.errors import InputError

ROOT = Path(__file__).resolve().parents[2]
# The commands of the published project's README, as our product keeps them.
TRAIN = (
    "--data_name ISIC --data_dir DATA --out_dir OUT --image_size 64 --num_channels 128 --class_cond False "
    "--num_res_blocks 2 --num_heads 1 --learn_sigma True --use_scale_shift_norm False --attention_resolutions 16 "
    "--diffusion_steps 100 --noise_schedule linear --rescale_learned_sigmas False --rescale_timesteps False "
    "--lr 1e-4 --batch_size 16"
).split()
DATA = ["--data_dir", "DATA"]
SAMPLE = [*TRAIN, *"--model_path RUN --num_ensemble 5".split()]
# Every flag that the published scripts know.
ALL = (
    "data_name data_dir schedule_sampler lr weight_decay lr_anneal_steps batch_size microbatch ema_rate log_interval "
    "save_interval resume_checkpoint use_fp16 fp16_scale_growth gpu_dev multi_gpu out_dir image_size num_channels "
    "num_res_blocks num_heads in_ch num_heads_upsample num_head_channels attention_resolutions channel_mult dropout "
    "class_cond use_checkpoint use_scale_shift_norm resblock_updown use_new_attention_order dpm_solver version "
    "learn_sigma diffusion_steps noise_schedule timestep_respacing use_kl predict_xstart rescale_timesteps "
    "rescale_learned_sigmas"
).split()
SAMPLING = "clip_denoised num_samples use_ddim model_path num_ensemble debug".split()


@pytest.fixture
def trained(monkeypatch):
    """What would be trained."""
    seen = []
    monkeypatch.setattr(train_command, "train", lambda config: seen.append(config) or 0)
    return seen


@pytest.fixture
def sampled(monkeypatch):
    """What would be sampled."""
    seen = []

    def sample(options, sampling, expected):
        seen.append({"out_dir": options.out_dir, "sampling": sampling, "expected": expected})
        return 0

    monkeypatch.setattr(sample_command, "sample", sample)
    return seen


def test_the_published_training_command_means_what_it_says(trained):
    assert published.train(TRAIN) == 0
    (config,) = trained
    network, training = config.network, config.training
    assert (network.image_size, network.num_channels, network.num_heads, network.attention_resolutions) == (
        64,
        128,
        1,
        "16",
    )
    assert network.learn_sigma
    assert not network.use_scale_shift_norm
    assert network.version == "new"
    assert (config.diffusion.diffusion_steps, config.diffusion.noise_schedule) == (100, "linear")
    assert (training.lr, training.batch_size, training.out_dir) == (1e-4, 16, "OUT")
    assert (config.data.data_name, config.data.data_dir) == ("isic", "DATA")


@pytest.mark.parametrize("flag", ["--steps", "--lr_anneal_steps"])
def test_a_number_of_steps_that_makes_no_sense_is_no_default(trained, flag):
    with pytest.raises(InputError, match=f"^{flag[2:]} -5: must"):
        published.train([*TRAIN, flag, "-5"])
    with pytest.raises(InputError, match=r"^steps 0: must"):
        published.train([*TRAIN, "--steps", "0"])


@pytest.mark.parametrize(
    ("flags", "steps"), [("", 100_000), ("--lr_anneal_steps 20", 20), ("--lr_anneal_steps 20 --steps 7", 7)]
)
def test_training_ends_where_the_learning_rate_does_unless_steps_are_given(trained, flags, steps):
    published.train([*TRAIN, *flags.split()])
    assert trained[0].training.steps == steps


def test_every_published_flag_is_known(trained, sampled, capsys):
    for script, flags in ((published.train, ALL), (published.sample, ALL + SAMPLING)):
        with pytest.raises(SystemExit) as left:
            script(["--help"])
        assert left.value.code == 0
        text = capsys.readouterr().out
        assert [flag for flag in flags if f"--{flag} " not in text] == []


def test_a_flag_without_a_meaning_says_so_in_one_line(trained, capsys):
    published.train([*TRAIN, "--multi_gpu", "0,1", "--gpu_dev", "0"])
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("note: --multi_gpu 0,1 has no effect here: ")


def test_half_precision_is_chosen_by_its_published_flags(trained, sampled):
    for words in ([], ["--use_fp16", "True", "--fp16_scale_growth", "0.01"]):
        published.train([*TRAIN, *words])
        published.sample([*SAMPLE, *words])
    assert [(c.training.precision, c.training.fp16_scale_growth) for c in trained] == [("fp32", 1e-3), ("fp16", 0.01)]
    assert [options["sampling"].precision for options in sampled] == ["fp32", "fp16"]


def test_gradient_checkpointing_is_chosen_by_its_published_flag(trained):
    published.train(TRAIN)
    published.train([*TRAIN, "--use_checkpoint", "True"])
    assert [config.training.use_checkpoint for config in trained] == [False, True]


def test_an_unknown_flag_and_a_bad_boolean_are_errors(trained):
    for words in (["--bogus", "1"], ["--learn_sigma", "maybe"], ["--image_size", "x"]):
        with pytest.raises(InputError, match=words[0]):
            published.train([*TRAIN, *words])
    with pytest.raises(InputError, match=r"--data_nmae: no such option; did you mean --data_name\?"):
        published.train([*TRAIN, "--data_nmae", "ISIC"])
    assert trained == []


def test_both_names_of_the_second_version_are_known(trained):
    for name, ours in (("new", "new"), ("1", "v1"), ("v1", "v1")):
        published.train([*TRAIN, "--version", name])
        assert trained[-1].network.version == ours


def test_several_classes_are_trained_and_sampled(trained, sampled):
    published.train([*TRAIN, "--num_classes", "3"])
    published.sample([*SAMPLE, "--num_classes", "3"])
    assert trained[0].network.mask_channels == 2
    assert sampled[0]["expected"]["num_classes"] == 3


@pytest.mark.parametrize(
    ("flags", "sampler", "steps", "respacing"),
    [
        ("", "ddpm", 0, ""),
        ("--timestep_respacing 25", "ddpm", 0, "25"),
        ("--use_ddim True --timestep_respacing ddim25", "ddim", 0, "ddim25"),
        ("--dpm_solver True", "dpm++", 100, ""),
        ("--dpm_solver True --timestep_respacing 25", "dpm++", 100, ""),
        ("--dpm_solver True --diffusion_steps 50", "dpm++", 50, ""),
        ("--dpm_solver True --diffusion_steps 20", "dpm++", 20, ""),  # of which there is no linear schedule
    ],
)
def test_the_published_switches_choose_the_sampler(sampled, flags, sampler, steps, respacing):
    published.sample([*SAMPLE, *flags.split()])
    (options,) = sampled
    sampling = options["sampling"]
    assert (sampling.sampler, sampling.steps, sampling.timestep_respacing) == (sampler, steps, respacing)
    assert sampling.threshold == (0.995 if sampler == "dpm++" else 0)
    assert sampling.members == 5
    expected = options["expected"]
    assert (expected["image_size"], expected["noise_schedule"]) == (64, "linear")
    assert expected.get("diffusion_steps") == (None if sampler == "dpm++" else 100)
    assert not {"dropout", "cond_dropout", "use_kl", "rescale_learned_sigmas"} & set(expected)  # of training alone


def test_the_solver_takes_20_steps_unless_told_otherwise_and_at_least_one(sampled):
    published.sample([*DATA, "--dpm_solver", "True"])
    assert sampled[0]["sampling"].steps == 20
    with pytest.raises(InputError, match="--diffusion_steps 0: must be at least 1"):
        published.sample([*DATA, "--dpm_solver", "True", "--diffusion_steps", "0"])


def test_defaults_are_the_published_ones(trained, sampled):
    """Those of guided_diffusion/script_util.py and the scripts."""
    published.train([])
    published.sample(DATA)
    flat = trained[0].flat()
    assert (flat["image_size"], flat["num_heads"], flat["attention_resolutions"]) == (64, 4, "16,8")
    assert (flat["learn_sigma"], flat["use_scale_shift_norm"], flat["num_channels"]) == (False, True, 128)
    assert (flat["out_dir"], flat["batch_size"], flat["lr"], flat["steps"]) == ("./results/", 1, 1e-4, 100_000)
    assert (flat["diffusion_steps"], flat["noise_schedule"], flat["ema_rate"]) == (1000, "linear", "0.9999")
    assert sampled[0]["expected"].items() <= flat.items()
    assert (sampled[0]["sampling"].members, sampled[0]["out_dir"]) == (5, "./results/")


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ("", "--data_dir: missing; give the dataset's folder"),
        ("--lr x", "--lr: must be a number, not x (see --help)"),
        ("--use_fp16 perhaps", "--use_fp16: perhaps: must be True or False (see --help)"),
    ],
)
def test_complaints_name_the_flags_of_the_scripts(flags, said):
    with pytest.raises(InputError) as caught:
        published.sample(flags.split())
    assert str(caught.value) == said


def test_two_samplers_at_once_are_refused(sampled):
    with pytest.raises(InputError, match="--dpm_solver, --use_ddim"):
        published.sample([*SAMPLE, "--dpm_solver", "True", "--use_ddim", "True"])


def test_resume_checkpoint_continues_the_run_that_holds_it(trained, tmp_path):
    folder = tmp_path / "run" / "step-000004"
    folder.mkdir(parents=True)
    (folder / "state.json").write_text("{}")
    for given in (tmp_path / "run", folder, folder / "state.json"):
        published.train([*TRAIN, "--resume_checkpoint", str(given)])
        assert trained[-1].training.out_dir == str(tmp_path / "run")
    for name, words in (("absent", "no such checkpoint"), ("savedmodel000100.pt", "of this program alone")):
        with pytest.raises(InputError, match=words):
            published.train([*TRAIN, "--resume_checkpoint", str(tmp_path / "run" / name)])
    newer = folder.with_name("step-000010")
    newer.mkdir()
    (newer / "state.json").write_text("{}")
    published.train([*TRAIN, "--resume_checkpoint", str(newer)])
    with pytest.raises(InputError, match=r"newest checkpoint, step-000010; .* copy step-000004 into"):
        published.train([*TRAIN, "--resume_checkpoint", str(folder)])


def test_the_metric_script_takes_both_pairs_of_names(monkeypatch, tmp_path):
    seen = []
    (tmp_path / "ISIC_1_Segmentation.png").touch()
    monkeypatch.setattr(evaluate_command, "evaluate", lambda pred, truth, **_: seen.append((pred, sorted(truth))))
    for pred, truth in (("--pred_path", "--gt_path"), ("--inp_pth", "--out_pth"), ("--inp_pth", "--gt_pred")):
        assert published.evaluate([pred, "PRED", truth, str(tmp_path)]) == 0
    assert seen == [("PRED", ["ISIC_1"])] * 3
    with pytest.raises(InputError, match="--gt_path"):
        published.evaluate(["--pred_path", "PRED"])


def test_the_metric_script_takes_the_classes_of_the_run(tmp_path):
    classes = Image.new("L", (8, 8))
    classes.putdata([0, 1, 2, 0] * 16)
    for name in ("pred", "truth"):
        (tmp_path / name).mkdir()
        classes.save(tmp_path / name / "a.png")
    (tmp_path / "pred" / "run.json").write_text('{"kept": [], "labels": "", "num_classes": 3}')
    assert published.evaluate(["--pred_path", str(tmp_path / "pred"), "--gt_path", str(tmp_path / "truth")]) == 0
    assert "dice_class2" in (tmp_path / "pred" / "metrics.csv").read_text()


@pytest.mark.parametrize("script", ["train", "sample", "env"])
def test_the_scripts_run_and_complain_in_one_line(script, tmp_path):
    command = [sys.executable, str(ROOT / "scripts" / f"segmentation_{script}.py"), "--bogus", "1"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("started", [[ROOT / "scripts" / "segmentation_train.py"], ["-m", "medsegdiff"]])
def test_what_is_not_installed_is_said_in_one_line(started):
    command = [sys.executable, "-S", *map(str, started), "--help"]  # without installed packages
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 2
    assert done.stderr.endswith(" (pip install . in a clone), or use the Python of the environment that has it\n")
    assert done.stderr.count("\n") == 1
