"""A prompt's samples as one request, each with a place and a seed."""

from engine.configs.schema import SamplingConfig
from engine.inference.sampling import joined, prompt_seed, sampling_parameters

FIRST, SECOND = [1, 2, 3], [4, 5]
SAMPLED = SamplingConfig(temperature=0.7, samples=3, seed=11)


def test_samples_of_one_prompt_are_one_request() -> None:
    assert joined([FIRST, FIRST, FIRST, SECOND], [0, 1, 2, 0]).prompts == [FIRST, SECOND]


def test_each_sample_has_its_place_in_the_call() -> None:
    assert joined([FIRST, FIRST, SECOND, SECOND], [0, 1, 0, 1]).places == [{0: 0, 1: 1}, {0: 2, 1: 3}]


def test_two_requests_of_one_text_stay_two() -> None:
    assert joined([FIRST, FIRST, FIRST, FIRST], [0, 1, 0, 1]).places == [{0: 0, 1: 1}, {0: 2, 1: 3}]


def test_a_missing_sample_is_asked_for_with_those_before_it() -> None:
    assert joined([FIRST, FIRST], [1, 4]).counts == [5]


def test_prompts_without_numbers_are_a_request_each() -> None:
    assert joined([FIRST, FIRST]).counts == [1, 1]


def test_the_number_of_samples_is_in_one_request() -> None:
    asked = joined([FIRST] * 3, [0, 1, 2])
    assert [one.n for one in sampling_parameters(asked.prompts, SAMPLED, counts=asked.counts)] == [3]


def test_a_requests_seed_is_its_prompts() -> None:
    found = sampling_parameters([FIRST, SECOND], SAMPLED, counts=[3, 3])
    assert [one.seed for one in found] == [prompt_seed(11, FIRST), prompt_seed(11, SECOND)]


def test_prompts_have_other_seeds() -> None:
    assert prompt_seed(11, FIRST) != prompt_seed(11, SECOND)


def test_runs_of_another_seed_have_other_seeds() -> None:
    assert prompt_seed(11, FIRST) != prompt_seed(12, FIRST)
