"""Configurations that differ in a few options."""

import dataclasses


def with_training(config, **options):
    return dataclasses.replace(config, training=dataclasses.replace(config.training, **options))


def with_network(config, **options):
    return dataclasses.replace(config, network=dataclasses.replace(config.network, **options))


def with_validation(config, **options):
    return dataclasses.replace(config, validation=dataclasses.replace(config.validation, **options))
