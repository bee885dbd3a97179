"""Mistakes and odd wishes around `launch`, in scripts of two real ranks."""

import json

from tests.support.processes import running_script
from tests.support.training_script import TRAINING, started_by, written

MANY_QUESTIONS = (
    TRAINING
    + """
from leyden.core.errors import LeydenError

def said(action):
    try:
        action()
    except LeydenError as error:
        return f"{type(error).__name__}: {error}"
    return "nothing"

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.used, self.unused = nn.Linear(2, 1), nn.Linear(2, 1)
    def forward(self, x):
        return self.used(x)
    def score(self, x):
        return self.used(x).sum()

fabric = Fabric(accelerator="cpu", devices=2, strategy="ddp")
answers = {"before launch": said(lambda: fabric.setup(nn.Linear(1, 1)))}
fabric.launch()
pid = os.getpid()
fabric.launch()
answers["twice"] = [fabric.launch(lambda fabric: fabric.world_size), os.getpid() == pid]
again = Fabric(accelerator="cpu", devices=2, strategy="ddp")
again.launch()
answers["second"] = [again.global_rank == fabric.global_rank, again.all_reduce(1.0, reduce_op="sum").item()]
answers["other size"] = said(lambda: Fabric(accelerator="cpu", devices=3, strategy="ddp").launch())

net = Net()
model = fabric.setup(net)
answers["unmarked"] = said(lambda: model.score(torch.ones(1, 2)))
fabric.backward(model(torch.ones(1, 2)).sum())
answers["unused"] = said(lambda: model(torch.ones(1, 2)))
answers["reduced"] = [fabric.all_reduce({"a": fabric.global_rank + 1, "b": torch.tensor([2.0])}, reduce_op="sum")["a"].item(),
                      fabric.all_gather(torch.tensor([fabric.global_rank])).tolist(), fabric.broadcast({"who": fabric.global_rank}, src=1)]
order = fabric.store
with fabric.rank_zero_first():
    answers["turn"] = order.add("turn", 1)
class Odd(Exception):
    pass
try:
    with fabric.rank_zero_first():
        if fabric.is_global_zero:
            raise ValueError("no download")
except ValueError as error:
    answers["first failed"] = str(error)
fabric.barrier("end")
Path(f"answers-{fabric.global_rank}").write_text(json.dumps(answers))
"""
)


def test_what_users_get_wrong_is_answered_on_every_rank():
    with running_script(MANY_QUESTIONS) as script:
        finished = script.wait()
        assert finished.code == 0, finished.stderr
        script.wait_until_gone(5.0)
        ranks = [json.loads(text) for text in written(script.folder, "answers")]
    assert len(ranks) == 2
    for number, answers in enumerate(ranks):
        assert "you must call `.launch()` or use the CLI" in answers["before launch"]
        assert answers["twice"] == [2, True]
        assert answers["second"] == [True, 2.0]
        assert answers["other size"].startswith("StateError: this process is already rank")
        assert 'model.mark_forward_method("score")' in answers["unmarked"]
        assert "no gradient: unused.weight, unused.bias. " in answers["unused"]
        assert answers["reduced"] == [3, [[0], [1]], {"who": 1}]
        assert answers["turn"] == number + 1
        assert answers["first failed"] == "no download"


SPAWNED = (
    TRAINING
    + """
class Mine(Fabric):
    def run(self, words, *, times=1):
        return [f"{word} {self.global_rank} of {self.world_size}" for word in words] * times

def fails(fabric):
    if fabric.global_rank == 1:
        raise ValueError("rank one does not like it")
    fabric.barrier()

if __name__ == "__main__":
    from leyden.core.errors import RankFailedError
    print(Mine(accelerator="cpu", devices=2, strategy="ddp_spawn").run(["spawned"], times=2), flush=True)
    fabric = Mine(accelerator="cpu", devices=2, strategy="ddp_fork")
    print(fabric.run(["forked"]), flush=True)
    try:
        fabric.launch(fails)
    except RankFailedError as error:
        print("caught", error.rank, "ValueError: rank one does not like it" in error.remote_traceback, flush=True)
    print(fabric.run(["again"]), flush=True)
"""
)


def test_run_may_be_overridden_and_errors_caught_where_functions_are_launched():
    with running_script(SPAWNED) as script:
        finished = script.wait()
        assert finished.code == 0, finished.stderr
        script.wait_until_gone(5.0)
    expected = ["['spawned 0 of 2', 'spawned 0 of 2']", "['forked 0 of 2']", "caught 1 True", "['again 0 of 2']"]
    assert finished.stdout.splitlines() == expected


RESTARTED = (
    TRAINING
    + """
fabric = Fabric(accelerator="cpu", devices=2, strategy="ddp")
fabric.launch()
model, loader = parts(fabric)
folder = CheckpointFolder(fabric, "checkpoints")
state = {"model": model, "loader": loader, "step": 0}
resumed = folder.resume(state)
start, losses = state["step"], []
while state["step"] < 12:
    for batch in loader:
        losses.append(step(fabric, model, batch))
        state["step"] += 1
        folder.save(state, state["step"], blocking=True)
        if state["step"] == 7 and not resumed and fabric.global_rank == 1:
            raise RuntimeError("a bad machine")
Path(f"life-{fabric.global_rank}").write_text(json.dumps([resumed, start, losses, train(fabric, 2)]))
"""
)


def test_torchrun_restarts_and_the_run_goes_on_where_it_was():
    arguments = ("--standalone", "--nproc-per-node=2", "--max-restarts=1", "train.py")
    with running_script(started_by("torch.distributed.run", *arguments, source=RESTARTED)) as script:
        finished = script.wait()
        assert finished.code == 0, finished.stderr
        lives = [json.loads(text) for text in written(script.folder, "life")]
        script.wait_until_gone(5.0)
    assert "RuntimeError: a bad machine" in finished.stderr
    for resumed, start, losses, whole in lives:
        assert len(whole) == 12
        assert (resumed, start) == (True, 7)
        assert losses == whole[7:], "the resumed run differs from the unbroken one"
