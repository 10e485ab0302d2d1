"""Laws that families of models, E-steps and data keep, for the tests of other packages."""
