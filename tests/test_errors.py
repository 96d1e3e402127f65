"""Errors of single arguments, and the sentences for names that have changed."""

import pickle

import pytest

import relevit
from relevit.errors import ArgumentError, new_name, tells_new_names


def test_an_error_of_an_argument_survives_a_process() -> None:
    error = pickle.loads(pickle.dumps(ArgumentError("limit", "must be at least 1, not 0")))
    assert (error.name, str(error)) == ("limit", "limit must be at least 1, not 0")


def test_old_names_fail_with_the_new_ones() -> None:
    for function in (relevit.relevance, relevit.forward_with_relevance):
        with pytest.raises(ArgumentError, match=r"^method is now called explainer$"):
            function(None, None, method="gae")
    with pytest.raises(ArgumentError, match=r"^normalization is now called protocol \(standard or paper\)$"):
        relevit.load("builtin", normalization="paper")


def test_names_are_old_only_where_there_is_the_new_one() -> None:
    @tells_new_names
    def both(method: str = "", explainer: str = "", **rest: str) -> tuple[str, str, dict[str, str]]:
        return method, explainer, rest

    assert both(method="a", explainer="b", mode="c") == ("a", "b", {"mode": "c"})
    assert new_name(both, "mode") is None and new_name(relevit.load, "method") is None
