"""What the package stands on: Jittor's set-up, errors, whole files, named random streams, joint processes."""
