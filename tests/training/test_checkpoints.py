import json
import random

import numpy as np
import pytest
import torch
from torch import nn

from teachback.training.checkpoints import load_state, random_states, restore_random_states, save_state


def round_trip(tmp_path, state):
    save_state(tmp_path / "state", state)
    return load_state(tmp_path / "state")


def assert_same(found, expected):
    assert type(found) is type(expected)
    if isinstance(expected, torch.Tensor):
        assert found.dtype == expected.dtype and torch.equal(found, expected)
    elif isinstance(expected, dict):
        assert list(found) == list(expected)
        for key in expected:
            assert_same(found[key], expected[key])
    elif isinstance(expected, (list, tuple)):
        assert len(found) == len(expected)
        for a, b in zip(found, expected):
            assert_same(a, b)
    else:
        assert found == expected


STATE = {
    "text": "t",
    "nothing": None,
    "flag": True,
    "float": 0.1 + 0.2,
    "tiny": 5e-324,
    "infinite": float("inf"),
    "pair": (0.9, 0.999),
    "nested": [(1, [2, (3,)]), {}, [], ()],
    0: {"step": torch.tensor(3.0), "moment": torch.randn(3, 2), 7: "an int key"},
    "tensor": "a key that the file uses too",
    "tuple": {"dict": 1, "tensor": "0"},
    "dict": [torch.zeros(2, dtype=torch.bfloat16), torch.tensor([True, False]), torch.arange(3, dtype=torch.uint8)],
    "empty": torch.zeros(0, 4),
}


def test_nested_values_are_restored_with_their_types(tmp_path):
    assert_same(round_trip(tmp_path, STATE), STATE)


def test_numpy_numbers_are_restored_as_python_numbers(tmp_path):
    found = round_trip(tmp_path, {"a": np.float64(0.5), "b": np.int64(3)})
    assert_same(found, {"a": 0.5, "b": 3})


def test_views_and_tensors_that_share_memory_are_restored(tmp_path):
    whole = torch.arange(12.0).reshape(3, 4)
    state = {"whole": whole, "again": whole, "turned": whole.T, "part": whole[1:, ::2]}
    found = round_trip(tmp_path, state)
    assert all(torch.equal(found[name], state[name]) for name in state)


def test_state_is_saved_as_json_and_safetensors_without_pickle(tmp_path):
    save_state(tmp_path / "state", STATE)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["state.json", "state.safetensors"]
    json.loads((tmp_path / "state.json").read_text())


def test_value_without_a_json_form_is_an_error(tmp_path):
    with pytest.raises(TypeError):
        save_state(tmp_path / "state", {"object": object()})


def model_and_optimizer(seed):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 1))
    groups = [
        {"params": model[0].parameters(), "weight_decay": 0.01},
        {"params": model[2].parameters(), "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=0.1, betas=(0.8, 0.95))
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (1 + step))
    return model, optimizer, scheduler


def steps(model, optimizer, scheduler, count):
    for _ in range(count):
        optimizer.zero_grad()
        model(torch.randn(5, 4)).square().mean().backward()
        optimizer.step()
        scheduler.step()


def test_optimizer_state_is_restored(tmp_path):
    model, optimizer, scheduler = model_and_optimizer(0)
    steps(model, optimizer, scheduler, 3)
    expected = optimizer.state_dict()
    found = round_trip(tmp_path, expected)
    assert_same(found, expected)
    assert list(found["state"]) == [0, 1, 2, 3] and found["param_groups"][0]["betas"] == (0.8, 0.95)


def test_resumed_training_equals_uninterrupted_training(tmp_path):
    model, optimizer, scheduler = model_and_optimizer(0)
    steps(model, optimizer, scheduler, 3)
    state = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "scheduler": scheduler.state_dict(),
        "random": random_states(),
    }
    save_state(tmp_path / "state", state)
    steps(model, optimizer, scheduler, 3)

    resumed, its_optimizer, its_scheduler = model_and_optimizer(1)
    state = load_state(tmp_path / "state")
    resumed.load_state_dict(state["model"])
    its_optimizer.load_state_dict(state["optimizer"])
    its_scheduler.load_state_dict(state["scheduler"])
    restore_random_states(state["random"])
    steps(resumed, its_optimizer, its_scheduler, 3)
    for found, expected in zip(resumed.parameters(), model.parameters(), strict=True):
        assert torch.equal(found, expected)
    assert its_scheduler.get_last_lr() == scheduler.get_last_lr()


def draws():
    values = [
        random.random(),
        random.gauss(0, 1),
        np.random.rand(),
        np.random.randn(),
        torch.rand(()).item(),
        torch.randn(3).tolist(),
    ]
    return [*values, random.choice(range(100)), np.random.permutation(9).tolist(), nn.functional.dropout(torch.ones(20)).tolist()]


def test_restored_random_generators_give_the_same_draws(tmp_path):
    random.seed(1)
    np.random.seed(2)
    torch.manual_seed(3)
    draws()  # leaves a cached second normal number in the generators of Python and NumPy
    save_state(tmp_path / "random", random_states())
    expected = draws()
    assert draws() != expected
    restore_random_states(load_state(tmp_path / "random"))
    assert draws() == expected
