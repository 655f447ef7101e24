"""Piano rolls as MIDI files, which any player plays."""

from __future__ import annotations

import data
import mido
import numpy as np
import numpy.typing as npt

QUARTER = 480  # ticks
ORGAN = 19  # in General MIDI's list of instruments, from 0


def of_roll(roll: npt.NDArray[np.uint8]) -> mido.MidiFile:
    """Make a file of a piano roll, (T, 88) of 0 and 1, a frame for each quarter.

    A note is from where a key goes down to where it goes up: what is struck again and again is one.
    """
    track = mido.MidiTrack([mido.Message("program_change", program=ORGAN)])
    wait = 0
    for change in np.diff(roll.astype(int), axis=0, prepend=0, append=0):
        for key in np.flatnonzero(change):
            kind = "note_on" if change[key] > 0 else "note_off"
            track.append(mido.Message(kind, note=data.LOWEST + int(key), time=wait))
            wait = 0
        wait += QUARTER
    return mido.MidiFile(tracks=[track], ticks_per_beat=QUARTER)
