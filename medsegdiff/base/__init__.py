"""The basis of everything: errors, atomic files, named random streams, the processor, ranks. Needs no Jittor."""
