"""Translation: from the letters of an English word to its sounds, with attention and a beam.

Data: CMU Pronouncing Dictionary (cmudict; BSD), 115,000 words to learn from and 1,000 others.
Measure: the part of these others of which any sound is wrong. The picture: at which letters the
decoder looked for each sound.
"""

import random

import common
import data
import fastlstm
import matplotlib.pyplot as plt
import numpy as np
from fastlstm import nn

START, END = 0, 1


class Speller(nn.Module):
    def gradients(self, letters, sounds):
        (x, lengths), (y, y_lengths) = nn.pad(letters), nn.pad(sounds)
        vectors, of_letters = self.letters.forward(x)
        states, _, encoder = self.encoder.forward(vectors, lengths=lengths)
        _, decoder = self.decoder.loss(states, lengths, y, y_lengths)
        encoder = encoder.backward(decoder.states)
        return {"letters": of_letters.backward(encoder.x), "encoder": encoder, "decoder": decoder}

    def say(self, letters, beam_size=1):
        x, lengths = nn.pad(letters)
        states, _ = self.encoder(self.letters(x), lengths=lengths)
        step = self.decoder.stream(states, lengths, beam_size=beam_size).step
        found = nn.beam_search(step, len(x.T), beam_size, start=START, end=END, max_length=25)
        return [best.tokens.tolist() for best, *_ in found]
