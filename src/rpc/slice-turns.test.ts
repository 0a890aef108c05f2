// Goal: a turn does one slice, whoever it belongs to; lines take turns, those in a line come in their order, and nobody who has nothing to
// do takes a turn from others. Method: takers that write down their slices, and a scheduler that the test turns.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type SliceLine, type SliceTaker, SliceTurns } from './slice-turns.ts';

class Bench {
  readonly turns: SliceTurns;
  private due: (() => void) | null = null;
  private readonly done: string[] = [];

  constructor() {
    this.turns = new SliceTurns((run) => {
      assert.equal(this.due, null, 'scheduled twice');
      this.due = run;
    });
  }

  /** One of so many slices. */
  taker(line: SliceLine, name: string, slices: number): SliceTaker {
    const taker: SliceTaker = {
      takeTurn: () => {
        if (slices === 0) return false;
        this.done.push(name);
        slices--;
        if (slices > 0) line.enter(taker);
        return true;
      },
    };
    return taker;
  }

  /** What the next turns do, one string each, until nothing is due. */
  run(turnsMax = 100): string[] {
    const turns: string[] = [];
    while (this.due !== null && turns.length < turnsMax) {
      const { due } = this;
      this.due = null;
      due();
      turns.push(this.done.splice(0).join('+'));
    }
    return turns;
  }
}

test('lines take turns, whoever is first in each; a line that is done leaves its turns to the others', () => {
  const bench = new Bench();
  const [answers, streams] = [bench.turns.newLine(), bench.turns.newLine()];
  answers.enter(bench.taker(answers, 'A', 4));
  for (const name of ['x', 'y', 'z']) streams.enter(bench.taker(streams, name, 2));
  assert.deepEqual(bench.run(3), ['A', 'x', 'A']);
  streams.enter(bench.taker(streams, 'late', 1));
  assert.deepEqual(bench.run(), ['y', 'A', 'z', 'A', 'x', 'late', 'y', 'z']);
});

test('who enters twice has one turn; who has nothing to do takes none, and nothing is scheduled for nobody', () => {
  const bench = new Bench();
  const [answers, streams] = [bench.turns.newLine(), bench.turns.newLine()];
  const twice = bench.taker(streams, 'twice', 1);
  for (let i = 0; i < 2; i++) streams.enter(twice);
  for (let i = 0; i < 5; i++) answers.enter(bench.taker(answers, 'gone', 0));
  assert.deepEqual(bench.run(), ['twice']);
  assert.deepEqual([answers.length, streams.length], [0, 0]);
  answers.enter(bench.taker(answers, 'gone', 0));
  assert.deepEqual(bench.run(), ['']);
});
