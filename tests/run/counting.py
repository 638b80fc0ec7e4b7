"""A process that keeps runs in a journal, says what it has committed, and goes on until it is killed.

`python counting.py PATH RUN SEED`: takes actions up in batches, settles some of them, and writes a line of JSON for
each reply, only once its batch is committed.
"""

import json
import random
import sys
import time

from fleetward.decision.replies import Done
from fleetward.delegation.scope import Amounts
from fleetward.run.calls import Learn, NotAllowed, Settle, Step, Taken
from fleetward.run.journal import RunStore


def main() -> None:
    path, run, seed = sys.argv[1:]
    chance = random.Random(seed)  # noqa: S311 - it need not be hard to guess
    taken: list[int] = []
    with RunStore.open(path) as store:
        while True:
            said: list[tuple[str, int]] = []
            now = time.time()
            with store.batch() as book:
                for _ in range(chance.randint(1, 8)):
                    reply = book.step(
                        Step(run, "reports/a", "ToolCall", "crm.read", target="crm", amounts=Amounts(records=2)), now
                    )
                    if isinstance(reply, NotAllowed):
                        said.append(("full", 0))
                    else:
                        assert isinstance(reply, Taken)
                        taken.append(reply.seq)
                        said.append(("taken", reply.seq))
                while taken and chance.random() < 0.7:
                    seq = taken.pop(chance.randrange(len(taken)))
                    allowed = chance.random() < 0.3
                    assert book.settle(Settle(run, seq, allowed), now) == Done()
                    said.append(("kept" if allowed else "given back", seq))
                    if allowed:
                        learn = Learn(run, "reports/a", seq, labels=("web",), actual=Amounts(records=1))
                        assert book.learn(learn, now) == Done()
            for line in said:
                sys.stdout.write(json.dumps(line) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
