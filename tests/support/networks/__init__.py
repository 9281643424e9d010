"""Tiny classifiers of six architectures, each with one set of weights that every framework and format is given."""
