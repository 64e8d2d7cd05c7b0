"""Task grouping (eq. 8 of MmAP): gradient rows against closed forms, searches against all set partitions."""

import itertools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_promptmtl.core.errors import UserError
from jax_promptmtl.methods import grouping, sharing
from jax_promptmtl.methods.clustering import OBJECTIVES, Partition, Rule
from jax_promptmtl.methods.clustering import partition as partition_by


def partition(similarity, objective="mean", *, top=2, exact_limit=16, **rule):
    return partition_by(similarity, Rule(objective, **rule), top=top, exact_limit=exact_limit)


def set_partitions(items):
    """Yield all partitions of a list, each in canonical form."""
    if not items:
        yield ()
        return
    first, *rest = items
    for size in range(len(rest) + 1):
        for mates in itertools.combinations(rest, size):
            for others in set_partitions([item for item in rest if item not in mates]):
                yield ((first, *mates), *others)


def objective_value(similarity, groups, objective):
    """Score a partition by the words of the specification, one pair at a time."""
    pairs = list(itertools.combinations(range(len(similarity)), 2))
    symmetric = (similarity + similarity.T) / 2
    offset = np.mean([symmetric[p] for p in pairs]) if objective == "centered" and pairs else 0
    total = 0.0
    for group in groups:
        if objective == "mean":
            for task in group:
                others = [symmetric[task, other] for other in group if other != task]
                total += np.mean(others) if others else 0
        else:
            total += sum(symmetric[pair] - offset for pair in itertools.combinations(group, 2))
    return total


def brute_force(similarity, objective, num_groups=None, singletons="allowed", max_group=99):
    """Rank every legal partition: score, then fewer groups, then lexicographic."""
    legal = [
        groups
        for groups in set_partitions(list(range(len(similarity))))
        if num_groups in (None, len(groups))
        and max(map(len, groups)) <= max_group
        and (singletons == "allowed" or min(map(len, groups)) > 1)
    ]
    scored = [(-round(objective_value(similarity, groups, objective), 9), len(groups), groups) for groups in legal]
    return [(groups, -score) for score, _, groups in sorted(scored)]


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("num_tasks", [1, 2, 4, 6, 8])
def test_exact_search_equals_brute_force(objective, num_tasks):
    rng = np.random.default_rng(num_tasks)
    rules = [{}, {"num_groups": 1 + num_tasks // 2}, {"max_group": 3}]
    rules += [{"singletons": "forbidden"}] if num_tasks > 1 else []
    for rule in rules:
        similarity = rng.normal(size=(num_tasks, num_tasks))
        expected = brute_force(similarity, objective, **rule)[:5]
        found = partition(similarity, objective, **rule, top=5)
        assert found.solver == "subset DP"
        assert [groups for groups, _ in found.ranking] == [groups for groups, _ in expected]
        np.testing.assert_allclose([s for _, s in found.ranking], [s for _, s in expected], atol=1e-8)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_ties_go_to_fewer_groups_then_lexicographic(objective):
    rng = np.random.default_rng(0)
    for _ in range(20):
        similarity = rng.integers(-1, 2, size=(5, 5)).astype(float)
        similarity += similarity.T
        expected = brute_force(similarity, objective)[:4]
        assert partition(similarity, objective, top=4).ranking == tuple(
            (groups, pytest.approx(score, abs=1e-8)) for groups, score in expected
        )
    assert partition(np.zeros((4, 4)), objective).groups == ((0, 1, 2, 3),)
    assert partition(np.zeros((4, 4)), objective, num_groups=2).groups == ((0,), (1, 2, 3))


def test_positive_sum_is_one_group():
    similarity = np.random.default_rng(0).uniform(0.01, 1, size=(6, 6))
    assert partition(similarity, "sum").groups == (tuple(range(6)),)


def test_four_tasks_without_singletons_are_two_pairs():
    for seed in range(300):
        similarity = np.random.default_rng(seed).normal(size=(4, 4))
        assert sorted(map(len, partition(similarity, "mean", singletons="forbidden").groups)) == [2, 2]


def test_four_positive_tasks_are_two_groups():
    sizes = set()
    for seed in range(300):
        similarity = np.random.default_rng(seed).uniform(size=(4, 4))
        sizes.add(tuple(sorted(map(len, partition(similarity, "mean").groups))))
    assert sizes == {(2, 2), (1, 3)}


def test_margin_is_to_the_runner_up():
    found = partition(np.array([[0, 3, 1], [3, 0, -1], [1, -1, 0.0]]), "sum")
    assert (found.groups, found.score) == (((0, 1, 2),), 3.0)  # ties with {0, 1}, {2}, which has more groups
    assert (found.runner_up, found.runner_up_score, found.margin) == (((0, 1), (2,)), 3.0, 0.0)
    alone = partition(np.zeros((1, 1)))
    assert (alone.groups, alone.runner_up, alone.margin) == (((0,),), None, None)


def planted(sizes, noise, seed):
    """Return a noisy block similarity on shuffled tasks and its groups."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    similarity = np.where(labels[:, None] == labels, 1.0, -1.0) + noise * rng.normal(size=(len(labels),) * 2)
    groups = tuple(sorted(tuple(np.flatnonzero(labels == k).tolist()) for k in range(len(sizes))))
    return similarity, groups


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("seed", range(3))
def test_local_search_finds_planted_groups(objective, seed):
    similarity, groups = planted([7, 6, 4, 3], 0.3, seed)
    found = partition(similarity, objective, num_groups=4 if objective == "mean" else None)
    assert found.solver == "local search"
    assert found.groups == groups
    assert found.runner_up != groups and found.margin > 0


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("rule", [{}, {"num_groups": 3}, {"singletons": "forbidden"}, {"max_group": 4}], ids=str)
def test_local_search_equals_exact_search(objective, rule):
    for seed in range(3):
        similarity = np.random.default_rng(seed).normal(size=(9, 9))
        local = partition(similarity, objective, **rule, exact_limit=1)
        exact = partition(similarity, objective, **rule)
        assert (local.solver, exact.solver) == ("local search", "subset DP")
        assert local.groups == exact.groups
        assert local.runner_up_score <= exact.runner_up_score + 1e-9


def test_impossible_rules_and_bad_matrices_are_user_errors():
    with pytest.raises(UserError, match="num_groups=3"):
        partition(np.zeros((4, 4)), num_groups=3, singletons="forbidden")
    with pytest.raises(UserError, match="relax"):
        partition(np.zeros((1, 1)), singletons="forbidden")
    with pytest.raises(UserError, match="relax"):
        partition(np.zeros((7, 7)), num_groups=2, max_group=3)
    with pytest.raises(UserError, match="finite"):
        partition(np.full((3, 3), np.nan))
    with pytest.raises(UserError, match="Did you mean 'mean'"):
        partition(np.zeros((2, 2)), "meen")


def test_task_gradients_are_those_of_mean_losses():
    """Loss of example b: <x_b, p>, so the gradient of a task's mean loss is the mean of its x, for any weights."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(6, 2, 3)).astype(np.float32)
    batch = {"task": jnp.array([0, 2, 2, 0, 2, 1]), "weight": jnp.array([0.3, 0.3, 0.3, 0.3, 0.3, 0.0])}

    def loss(params):
        slots = {"prompt": np.zeros(3, int)}
        per_task, collapse = jax.vjp(lambda p: sharing.expand(p, slots), params)

        def weighted(trees):
            return sum(
                jnp.sum(batch["weight"] * jnp.einsum("bmn,bmn->b", x, leaf[batch["task"]]))
                for leaf in trees["prompt"].values()
            )

        grads = jax.grad(weighted)(per_task)
        return grads, collapse(grads)[0]

    params = {"prompt": {"b": jnp.zeros((1, 2, 3)), "a": jnp.ones((1, 2, 3))}}
    grads, collapsed = loss(params)
    rows = jax.jit(grouping.task_gradients)(grads, batch)
    for task, members in {0: [0, 3], 2: [1, 2, 4]}.items():
        np.testing.assert_allclose(rows[task], np.tile(x[members].mean(0).ravel(), 2), rtol=1e-5, atol=1e-6)
    assert not np.any(rows[1])  # only padding
    sums = jnp.array([0.6, 0.0, 0.9]) @ rows  # rows add up to the training gradient
    np.testing.assert_allclose(sums, np.tile(np.ravel(collapsed["prompt"]["a"]), 2), rtol=1e-5, atol=1e-6)


def snapshots(rng, means, noise, count, warmup=0):
    """Return a Similarity of noisy gradients around fixed means [T, n], and the gradients."""
    grads = means + noise * rng.normal(size=(count, *means.shape))
    similarity = grouping.Similarity(["a", "b", "c"][: len(means)], steps_per_epoch=10, warmup_steps=warmup)
    for step, snapshot in enumerate(grads, 1):
        similarity.add(step, snapshot)
    return similarity, grads


def test_statistics_against_plain_numpy():
    similarity, grads = snapshots(np.random.default_rng(0), np.eye(3, 7), 1.0, 25, warmup=10)
    grams = np.einsum("stn,sun->stu", grads, grads)
    norms = np.linalg.norm(grads, axis=-1)
    kept = slice(10, None)
    assert len(similarity) == 15 and (similarity.count() == 15).all()
    np.testing.assert_allclose(similarity.matrix("dot"), grams[kept].mean(0))
    np.testing.assert_allclose(similarity.std(), grams[kept].std(0))
    np.testing.assert_allclose(similarity.conflict_rate(), (grams[kept] < 0).mean(0))
    cosines = grams / norms[:, :, None] / norms[:, None]
    np.testing.assert_allclose(similarity.matrix("cosine"), cosines[kept].mean(0))
    epochs, course = similarity.per_epoch()
    assert epochs == [1, 2, 3]
    np.testing.assert_allclose(course, [grams[:10].mean(0), grams[10:20].mean(0), grams[20:].mean(0)])


def test_split_half_removes_the_noise_that_shrinks_cosines():
    means = np.array([[3.0, 0, 0, 0], [3.0, 3.0, 0, 0], [-3.0, 1.0, 0, 0]])
    means = np.concatenate([means, np.zeros((3, 60))], axis=1)
    similarity, _ = snapshots(np.random.default_rng(1), means, 1.0, 4000)
    true = means @ means.T / np.outer(*[np.linalg.norm(means, axis=1)] * 2)
    np.testing.assert_allclose(similarity.matrix("split_half"), true, atol=0.03)
    assert abs(similarity.matrix("cosine")[0, 1]) < 0.3 < true[0, 1]


def test_observed_sketches_stand_for_whole_gradients():
    rng = np.random.default_rng(2)
    means = rng.normal(size=(2, 3000)) + rng.normal(size=3000)
    sketched, whole = grouping.Similarity(["a", "b"], 10), grouping.Similarity(["a", "b"], 10)
    seen = jax.jit(grouping.observe)
    batch = {"task": jnp.array([0, 1, 1]), "weight": jnp.full(3, 0.5)}
    for step in range(1, 31):
        grads = {"a": (means + 2 * rng.normal(size=means.shape)).astype(np.float32)}
        sketched.add_observed(step, seen(grads, batch))
        whole.add(step, grouping.task_gradients(grads, batch))
    np.testing.assert_allclose(sketched.matrix("dot"), whole.matrix("dot"), rtol=1e-5)
    np.testing.assert_allclose(sketched.matrix("cosine"), whole.matrix("cosine"), rtol=1e-5)
    true = means[0] @ means[1] / np.prod(np.linalg.norm(means, axis=1))
    assert whole.matrix("split_half")[0, 1] == pytest.approx(true, rel=0.05)
    assert sketched.matrix("split_half")[0, 1] == pytest.approx(true, rel=0.15)


def test_absent_tasks_do_not_count():
    similarity = grouping.Similarity(["a", "b"], 10)
    similarity.add(1, [[1.0, 0.0], [0.0, 0.0]])
    with pytest.raises(UserError, match="'a' and 'b' never shared a batch"):
        similarity.matrix()
    similarity.add(2, [[1.0, 1.0], [2.0, 0.0]])
    similarity.add(3, [[0.0, 0.0], [4.0, 0.0]])
    np.testing.assert_array_equal(similarity.count(), [[2, 1], [1, 2]])
    np.testing.assert_allclose(similarity.matrix(), [[1.5, 2.0], [2.0, 10.0]])
    np.testing.assert_allclose(similarity.matrix("split_half")[0, 1], 2 / np.sqrt(1 * 8))  # D: <g0, g1>, <g1, g2>


def test_bad_snapshots():
    similarity = grouping.Similarity(["a", "b"], 10, warmup_steps=5)
    with pytest.raises(UserError, match="gradient of b is not finite at step 1"):
        similarity.add(1, [[1.0], [np.inf]])
    similarity.add(1, [[1.0], [2.0]])
    with pytest.raises(UserError, match="no gradient snapshot after its 5 warm-up steps"):
        similarity.matrix()
    with pytest.raises(ValueError, match="after that of step 1"):
        similarity.add(1, [[1.0], [2.0]])


def test_interrupted_accumulation_is_bitwise_equal(tmp_path):
    rng = np.random.default_rng(0)
    whole, grads = snapshots(rng, np.eye(3, 5), 1.0, 12)
    half = grouping.Similarity(["a", "b", "c"], 10)
    for step, snapshot in enumerate(grads, 1):
        half.add(step, snapshot)
        half.save(tmp_path / "similarity.npz")
        half = grouping.Similarity.load(tmp_path / "similarity.npz")
    for kind in grouping.KINDS:
        np.testing.assert_array_equal(half.matrix(kind), whole.matrix(kind))


def test_stability_is_high_with_signal_and_low_without():
    pairs = np.array([[1.0, 0.2, 0, 0], [1.0, -0.2, 0, 0], [-1.0, 0.2, 0, 0]])
    clear, _ = snapshots(np.random.default_rng(0), pairs, 0.1, 50)
    found = partition(clear.matrix())
    assert found.groups == ((0, 1), (2,))
    assert grouping.stability(clear, found.groups, repeats=50) == 1.0
    vague, _ = snapshots(np.random.default_rng(0), 0 * pairs, 1.0, 50)
    share = grouping.stability(vague, partition(vague.matrix()).groups, repeats=50)
    assert 0.0 < share < 1.0
    assert share == grouping.stability(vague, partition(vague.matrix()).groups, repeats=50)  # seeded


def test_random_groups_keep_sizes_and_avoid_the_learned_partition():
    learned = ((0, 1), (2, 3))
    drawn = [grouping.random_groups(learned, seed) for seed in range(200)]
    assert set(drawn) == {((0, 2), (1, 3)), ((0, 3), (1, 2))}
    assert 60 < drawn.count(((0, 2), (1, 3))) < 140
    assert sorted(map(len, grouping.random_groups(((0, 3), (1,), (2, 4, 5)), 1))) == [1, 2, 3]
    with pytest.raises(UserError, match="no other partition"):
        grouping.random_groups(((0, 1, 2),), 0)


def test_grouping_json_round_trip(tmp_path):
    means = np.array([[1.0, 0.2], [1.0, -0.2], [-1.0, 0.2]])
    similarity, _ = snapshots(np.random.default_rng(0), means, 0.1, 20)
    found = partition(similarity.matrix(), objective="centered")
    content = grouping.report(similarity, found, stable=0.9, rule=Rule("centered"))
    path = tmp_path / "grouping.json"
    grouping.save(path, content)
    read = json.loads(path.read_text())
    assert read["groups"] == [["a", "b"], ["c"]] and read["rule"]["objective"] == "centered"
    assert read["margin"] == pytest.approx(read["score"] - read["runner_up_score"]) and read["margin"] > 0
    assert read["ranking"][1]["groups"] == read["runner_up"]
    np.testing.assert_allclose(read["matrices"]["dot"], similarity.matrix())
    assert grouping.load_groups(path, ["a", "b", "c"]) == ((0, 1), (2,))
    assert grouping.load_groups(path, ["c", "a", "b"]) == ((0,), (1, 2))  # by name, not by position
    with pytest.raises(UserError, match="the suite has a, b, d"):
        grouping.load_groups(path, ["a", "b", "d"])
    with pytest.raises(UserError, match="run the grouping stage first"):
        grouping.load_groups(tmp_path / "missing.json", ["a"])
    path.write_text("{")
    with pytest.raises(UserError, match=r"is not a grouping\.json"):
        grouping.load_groups(path, ["a"])


def test_sixteen_tasks_are_still_exact():
    similarity, groups = planted([6, 5, 5], 0.2, 0)
    found = partition(similarity, "centered")
    assert isinstance(found, Partition) and (found.solver, found.groups) == ("subset DP", groups)
