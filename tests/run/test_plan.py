"""Plans, checked as a whole before the first step."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from run.world import NOW, World, key, mandate

from fleetward.decision.action import Action
from fleetward.delegation.scope import Amounts, AskedScope, Violation
from fleetward.run.calls import CheckPlan, NotAllowed, PlanChecked, PlanStep
from fleetward.run.plan import MAX_SHOWN, StepFacts


def step(id_: str, name: str = "b", action: str = "crm.read", after: Sequence[str] = ()) -> PlanStep:
    return PlanStep(id=id_, agent=key(name), action=Action("ToolCall", action), depends_on=tuple(after))


def allowed(_: PlanStep) -> StepFacts:
    return StepFacts("Allow", data_classes=("customer",), target="crm", amounts=Amounts(calls=1, records=10))


def check(
    world: World, steps: Sequence[PlanStep], judge: Callable[[PlanStep], StepFacts | None] = allowed, by: str = "a"
) -> PlanChecked:
    grant = world.grants.get(by)
    request = CheckPlan(world.run, key(by), tuple(steps), grant.id if grant else None)
    reply = world.book.check_plan(request, judge, world.now)
    assert isinstance(reply, PlanChecked), reply
    return reply


def told(violations: Sequence[Violation]) -> list[tuple[Any, ...]]:
    return [(v.step or v.total, v.found, v.allowed, v.by) for v in violations]


def test_a_plan_within_its_mandate() -> None:
    world = World(mandate(steps=4, records=40, agents=3, depth=1, data_classes=("customer",), targets=("crm",)))
    checked = check(
        world,
        [
            step("read"),
            step("left", "c", after=["read"]),
            step("right", after=["read"]),
            step("end", after=["left", "right"]),
        ],
    )
    assert checked.violations == ()
    assert checked.held == ()
    totals = checked.totals
    assert (totals.steps, totals.fan_out, totals.depth) == (4, 2, 3)
    assert totals.agents == (key("b"), key("c"))
    assert (totals.data_classes, totals.targets) == (("customer",), ("crm",))
    assert totals.amounts == Amounts(4, 4, 40, 0, 0, 0)


def test_the_plan_costs_nothing_and_shows_in_the_history() -> None:
    world = World(mandate(steps=1))
    assert check(world, [step("one", "a")]).view.repeats == 0
    assert check(world, [step("one", "a")]).view.repeats == 1
    world.act("a")


def test_forty_subtasks_each_in_scope_and_together_out_of_it() -> None:
    world = World(mandate(records=300))
    checked = check(world, [step(f"s{number}", "a") for number in range(40)])
    assert told(checked.violations) == [("records", "400", "300", "mandate")]


def test_what_the_run_has_used_counts() -> None:
    world = World(mandate(records=100))
    world.act("a", records=85)
    assert told(check(world, [step("one", "a"), step("two", "a")]).violations) == [("records", "105", "100", "mandate")]


def test_every_grant_above_the_planner_counts() -> None:
    world = World()
    first = world.delegate("a", "b", AskedScope(limits=Amounts(steps=5)))
    second = world.delegate("b", "c", AskedScope(limits=Amounts(steps=3, calls=4)))
    steps = [step(f"s{number}", "c") for number in range(5)]
    assert told(check(world, steps, by="c").violations) == [
        ("steps", "5", "3", f"grant {second.id}"),
        ("calls", "5", "4", f"grant {second.id}"),
        ("steps", "6", "5", f"grant {first.id}"),
    ]


def test_agents_and_depth() -> None:
    world = World(mandate(agents=2, depth=0))
    assert told(check(world, [step("one", "b"), step("two", "c")]).violations) == [
        ("agents", "3", "2", "mandate"),
        ("depth", "1", "0", "mandate"),
    ]
    assert check(world, [step("one", "a")]).violations == ()


def test_a_planner_that_may_not_hand_on_plans_for_those_who_are_reached() -> None:
    world = World()
    grant = world.delegate("a", "planner", AskedScope(depth=0))
    world.delegate("a", "b")
    assert check(world, [step("one", "a"), step("two", "b"), step("three", "planner")], by="planner").violations == ()
    assert told(check(world, [step("one", "c")], by="planner").violations) == [("depth", "1", "0", f"grant {grant.id}")]


def test_steps_out_of_scope_are_named() -> None:
    world = World(mandate(data_classes=("customer",), targets=("crm",)))
    grant = world.delegate("a", "b", AskedScope(actions=("crm.*",)))

    def judge(one: PlanStep) -> StepFacts:
        extra = ("salary",) if one.id == "three" else ()
        return StepFacts("Allow", data_classes=("customer", *extra), target="erp" if one.id == "four" else "crm")

    steps = [step("one"), step("two", action="erp.read"), step("three"), step("four")]
    assert told(check(world, steps, judge, by="b").violations) == [
        ("two", "actions erp.read", "crm.*", f"grant {grant.id}"),
        ("three", "dataClasses salary", "customer", "mandate"),
        ("four", "targets erp", "crm", "mandate"),
    ]


def test_what_the_rules_say_of_a_step() -> None:
    def judge(one: PlanStep) -> StepFacts | None:
        if one.id == "ghost":
            return None
        decisions: dict[str, StepFacts] = {
            "deny": StepFacts("Deny", "no raw input", "rule raw of routing"),
            "ask": StepFacts("RequireApproval", "mail outside"),
            "slow": StepFacts("Throttle"),
        }
        return decisions.get(one.id, StepFacts("Constrain"))

    checked = check(World(), [step(name) for name in ("fine", "deny", "ask", "slow", "ghost")], judge)
    assert told(checked.violations) == [
        ("deny", "Deny: no raw input", "what the rules allow its agent", "rule raw of routing"),
        ("ghost", "agent reports/b, which is not governed", "agents that an Agent resource names", ""),
    ]
    assert checked.held == (
        "step ask: RequireApproval for crm.read by reports/b: mail outside",
        "step slow: Throttle for crm.read by reports/b",
    )


def test_structure() -> None:
    steps = [step("one"), step("one"), step("two", after=["nobody", "one"])]
    assert told(check(World(), steps).violations) == [
        ("one", "the id of another step, too", "each id once", ""),
        ("two", "dependsOn nobody, no step of the plan", "steps of the plan", ""),
    ]


@pytest.mark.parametrize(
    ("waits", "found"),
    [
        ({"x": ["x"]}, "x → x"),
        ({"first": [], "x": ["first", "y"], "y": ["x"], "last": ["y"]}, "x → y → x"),
        ({"last": ["z"], "x": ["y"], "y": ["z"], "z": ["x"]}, "z → x → y → z"),
    ],
)
def test_circles(waits: dict[str, list[str]], found: str) -> None:
    (violation,) = check(World(), [step(id_, after=after) for id_, after in waits.items()]).violations
    assert violation.found == f"waits for itself: {found}"


def test_many_dependencies() -> None:
    ids = [f"s{number}" for number in range(200)]
    steps = [step(id_, after=ids[:number]) for number, id_ in enumerate(ids)]
    assert told(check(World(), steps).violations) == [("dependsOn", "19900 dependencies", "10000", "")]


def test_a_long_list_of_violations_is_cut_and_says_so() -> None:
    checked = check(World(mandate(targets=())), [step(f"s{number}") for number in range(1000)])
    assert len(checked.violations) == MAX_SHOWN + 1
    assert checked.violations[-1].found == "1000 of steps, of which the first 100 are listed"
    held = check(World(), [step(f"s{number}") for number in range(1000)], lambda _: StepFacts("Throttle")).held
    assert held[-1] == "and 900 more steps"


def test_a_chain_of_a_thousand_steps() -> None:
    steps = [step(f"s{number}", after=[f"s{number - 1}"] if number else []) for number in range(1000)]
    totals = check(World(), list(reversed(steps))).totals
    assert (totals.depth, totals.fan_out, totals.steps) == (1000, 1, 1000)


def test_only_who_has_standing_may_plan() -> None:
    world = World()
    reply = world.book.check_plan(CheckPlan(world.run, key("b"), (step("one"),)), allowed, NOW)
    assert isinstance(reply, NotAllowed)
