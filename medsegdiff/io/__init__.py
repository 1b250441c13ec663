"""Files of users: pictures and predictions. Needs no Jittor."""
