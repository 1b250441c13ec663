"""What TensorBoard would find in a run's folder."""

import struct

from tensorboardX.proto.event_pb2 import Event


def events(out):
    """All whole events, file after file."""
    found = []
    for file in sorted((out / "tensorboard").glob("events.*")):
        content, start = file.read_bytes(), 0
        while start < len(content):
            (length,) = struct.unpack_from("<Q", content, start)  # a checksum of 4 bytes follows it, and the event
            found.append(Event.FromString(content[start + 12 : start + 12 + length]))
            start += 16 + length
    return found


def shown(out):
    """{step: {name: value}} of the numbers that are not hidden by a later start."""
    steps = {}
    for event in events(out):
        if event.HasField("session_log"):
            steps = {step: values for step, values in steps.items() if step < event.step}
        for value in event.summary.value:
            steps.setdefault(event.step, {})[value.tag] = value.simple_value
    return steps
