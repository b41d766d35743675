"""Arguments of the optimiser: the `TrainingArguments` they build, their fingerprint, and `--trainer` keys."""

import math
import subprocess
import sys

import pytest
from commands import ROOT

from teachback.core.errors import TeachbackError
from teachback.core.parsing import parse_options
from teachback.core.training_arguments import OptimizerArguments

RECORDED = {  # by earlier releases, whose finished stages stay valid
    "learning_rate": 2e-5, "num_train_epochs": 3.0, "per_device_train_batch_size": 32, "lr_scheduler_type": "linear", "seed": 42,
    "weight_decay": 0.01, "warmup_steps": 0.1, "adam_beta1": 0.9, "adam_beta2": 0.999, "adam_epsilon": 1e-8, "max_grad_norm": 1.0,
    "gradient_accumulation_steps": 1, "max_steps": -1, "eval_strategy": "epoch", "save_strategy": "epoch",
    "load_best_model_at_end": True, "remove_unused_columns": False, "label_names": ["label"], "ddp_find_unused_parameters": False,
    "bf16": False, "fp16": False, "processes": 1,
}  # fmt: skip


def fingerprint(precision: str = "fp32", **options) -> dict:
    arguments = OptimizerArguments(**options)
    return arguments.fingerprint(arguments.training_arguments("cpu", precision))


def test_the_fingerprint_holds_only_arguments_that_determine_the_result():
    assert fingerprint() == RECORDED
    assert fingerprint(per_device_eval_batch_size=2, save_steps=7, logging_steps=3, save_total_limit=1, dataloader_num_workers=0) == RECORDED
    assert fingerprint(adam_beta1=0.8, patience=2) == RECORDED | {"adam_beta1": 0.8, "patience": 2}
    assert fingerprint("bf16") == RECORDED | {"bf16": True}


def test_trainer_keys_reach_hugging_faces_arguments_and_are_recorded():
    keys = ["optim=adamw_torch", "dataloader_drop_last=true", "data_seed=3", "eval_strategy=no", "load_best_model_at_end=0"]
    (arguments,) = parse_options(OptimizerArguments, argv=["--trainer", *keys[:2], "--trainer", keys[2], "--trainer", *keys[3:]])
    built = arguments.training_arguments("cpu", "fp32")
    assert built.dataloader_drop_last is True and built.data_seed == 3 and built.eval_strategy == "no"
    chosen = {"optim": "adamw_torch", "dataloader_drop_last": True, "data_seed": 3, "eval_strategy": "no", "load_best_model_at_end": False}
    assert arguments.fingerprint(built) == RECORDED | chosen
    steps = fingerprint(save_steps=4, trainer=["save_strategy=steps", "eval_strategy=steps", "eval_steps=4"])
    assert steps["save_steps"] == 4 and steps["eval_steps"] == 4


def test_a_warm_up_without_effect_on_the_schedule_is_refused():
    with pytest.raises(TeachbackError, match=r"--warmup_steps 0.2 has no effect with the schedule 'constant'; .* constant_with_warmup"):
        OptimizerArguments(lr_scheduler_type="constant", warmup_steps=0.2)
    for schedule in ("constant_with_warmup", "linear"):
        assert OptimizerArguments(lr_scheduler_type=schedule, warmup_steps=0.2).warmup_steps == 0.2
    assert OptimizerArguments(lr_scheduler_type="constant").lr_scheduler_type == "constant"


@pytest.mark.parametrize(("key", "message"), [
    ("optim", "optim: expected key=value"), ("optm=sgd", "no such field; did you mean optim"), ("data_seed=x", "invalid int value"),
    ("learning_rate=1", "it is a flag, --learning_rate 1"), ("bf16=true", "see --precision"), ("run_name=mine", "no effect here"),
    ("hub_strategy=end", "uploaded once"), ("gradient_checkpointing=true", "see --gradient_accumulation_steps"), ("save_strategy=steps", "needs --save_steps"),
])  # fmt: skip
def test_invalid_and_repeated_trainer_keys_are_refused(key, message):
    with pytest.raises(TeachbackError, match=message):
        OptimizerArguments(trainer=[key])
    with pytest.raises(TeachbackError, match="given twice"):
        OptimizerArguments(trainer=["data_seed=1", "data_seed=2"])


@pytest.mark.parametrize(("flag", "message"), [("data_seed", "--trainer data_seed=..."), ("bf16", "see --precision"), ("lerning_rate", "unknown")])
def test_a_trainer_field_given_as_a_flag_is_refused_with_the_remedy(flag, message):
    with pytest.raises(TeachbackError, match=message):
        parse_options(OptimizerArguments, argv=[f"--{flag}", "3"])


@pytest.mark.parametrize(("name", "value"), [
    ("logging_steps", math.nan), ("logging_steps", -1), ("adam_beta1", 1), ("adam_beta2", -0.1), ("adam_epsilon", -1),
    ("max_steps", -2), ("save_total_limit", -1), ("dataloader_num_workers", -2),
])  # fmt: skip
def test_numbers_outside_their_range_are_refused_with_the_name(name, value):
    with pytest.raises(TeachbackError, match=f"{name.upper()}={value}: must be"):
        OptimizerArguments(**{name: value})


def test_values_that_hugging_face_refuses_are_reported():
    with pytest.raises(TeachbackError, match="wobbly"):
        OptimizerArguments(lr_scheduler_type="wobbly").training_arguments("cpu", "fp32")


def test_arguments_can_be_built_without_pytorch():
    code = "import sys; import teachback.core.arguments as a; a.OptimizerArguments(); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": str(ROOT / "src")}, capture_output=True, text=True)
    assert done.stdout == "False\n", done.stderr
