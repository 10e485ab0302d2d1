"""All laws at once, and a base class for tests with pytest."""

from collections.abc import Mapping
from typing import ClassVar

from distvae.testing import esteps, models
from distvae.testing.case import SHAPE, Case


def check_model(settings: Mapping[str, object], shape: tuple[int, ...] = SHAPE) -> None:
    """Check all laws for the model and the E-step of a configuration.

    Raise an AssertionError with the name of the first law that is broken.
    """
    for law in (*models.MODEL_LAWS, *esteps.ESTEP_LAWS):
        try:
            law(Case.of(settings, shape))
        except AssertionError as error:
            raise AssertionError(f"{law.__name__}: {str(error) or law.__doc__}") from error


class ModelLaws:
    """Tests of a model and its E-step: derive a class `Test...` from it, and set `settings`."""

    settings: ClassVar[Mapping[str, object]] = {}
    """Sections of the configuration, such as {"model": {"kind": "mine"}}."""
    shape: ClassVar[tuple[int, ...]] = SHAPE
    """The shape of an observation."""

    def case(self) -> Case:
        """Return a new case."""
        return Case.of(self.settings, self.shape)

    def test_shapes_are_those_of_the_interface(self) -> None:
        """Codes, points, weights, decoded values and densities have the shapes of the protocols."""
        models.shapes_are_those_of_the_interface(self.case())

    def test_expectations_are_linear_and_keep_constants(self) -> None:
        """E[1] = 1 and E[2 f] = 2 E[f], by draws and without."""
        models.expectations_are_linear_and_keep_constants(self.case())

    def test_the_code_is_the_expected_state(self) -> None:
        """The code of a row is E_q[z]."""
        models.the_code_is_the_expected_state(self.case())

    def test_expectations_without_draws_are_fixed(self) -> None:
        """Without draws, an expectation does not depend on the noise."""
        models.expectations_without_draws_are_fixed(self.case())

    def test_the_order_of_rows_does_not_matter(self) -> None:
        """Rows in another order have the same objectives."""
        models.the_order_of_rows_does_not_matter(self.case())

    def test_statistics_add_over_parts_of_a_batch(self) -> None:
        """The statistics of a batch are the sums of those of its parts."""
        models.statistics_add_over_parts_of_a_batch(self.case())

    def test_the_bound_is_the_mean_of_its_integrand(self) -> None:
        """The bound is E_q[log p(x | z) + log p(z) - log q(z)], however it is computed."""
        models.the_bound_is_the_mean_of_its_integrand(self.case())

    def test_the_bound_never_exceeds_an_importance_weighted_estimate(self) -> None:
        """The mean of the integrand is at most the logarithm of the mean of its exponential."""
        models.the_bound_never_exceeds_an_importance_weighted_estimate(self.case())

    def test_the_objective_reaches_every_parameter(self) -> None:
        """After all warm-ups every parameter that learns has a gradient."""
        models.the_objective_reaches_every_parameter(self.case())

    def test_missing_values_change_nothing(self) -> None:
        """A value that is masked does not enter the bound."""
        models.missing_values_change_nothing(self.case())

    def test_the_weights_are_a_function_of_the_seed(self) -> None:
        """A seed gives the same first weights again; another seed gives others."""
        models.the_weights_are_a_function_of_the_seed(self.case())

    def test_warm_ups_end(self) -> None:
        """Late in training the objective is what it is after all warm-ups."""
        models.warm_ups_end(self.case())

    def test_projecting_twice_is_projecting_once(self) -> None:
        """A second projection changes nothing."""
        models.projecting_twice_is_projecting_once(self.case())

    def test_inference_keeps_nothing(self) -> None:
        """Posteriors of new data leave those of rows in training as they are."""
        esteps.inference_keeps_nothing(self.case())

    def test_inference_without_sweeps_is_that_of_training(self) -> None:
        """Without sweeps, rows in training have the posteriors that training uses."""
        esteps.inference_without_sweeps_is_that_of_training(self.case())

    def test_inference_is_repeatable(self) -> None:
        """Rows have the same posteriors whenever they are asked for."""
        esteps.inference_is_repeatable(self.case())

    def test_a_search_never_lowers_a_bound(self) -> None:
        """Under fixed parameters a searched block is bounded at least as well as before."""
        esteps.a_search_never_lowers_a_bound(self.case())

    def test_the_state_survives_saving_and_loading(self) -> None:
        """An E-step that loads what another saved has the same posteriors."""
        esteps.the_state_survives_saving_and_loading(self.case())
