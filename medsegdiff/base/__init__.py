"""What everything stands on: errors, whole files, named random streams, the processor, ranks. Needs no Jittor."""
