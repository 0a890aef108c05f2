// One slice a turn of the event loop, whoever it belongs to: everybody else is served in between. Lines take turns (answers that are
// read whole, streams), so that a thousand of one kind do not hold up the other; in a line comes first who entered first.
//
//   line 0   A           turn 1: A   2: x   3: A (entered again)   4: y   5: A   6: x ...
//   line 1   x y

/** What has slices to be done. */
export interface SliceTaker {
  /** Does one, and enters its line again if it has more to do; false: there was nothing to do, and it has not entered. */
  takeTurn(): boolean;
}

export class SliceTurns {
  private readonly schedule: (run: () => void) => void;
  private readonly lines: SliceLine[] = [];
  /** Whose turn is next. */
  private at = 0;
  private scheduled = false;

  /** `schedule` runs a callback in a later turn. */
  constructor(schedule: (run: () => void) => void) {
    this.schedule = schedule;
  }

  newLine(): SliceLine {
    const line = new SliceLine(this);
    this.lines.push(line);
    return line;
  }

  /** Has a turn come. */
  wake(): void {
    if (this.scheduled) return;
    this.scheduled = true;
    this.schedule(this.run);
  }

  private readonly run = (): void => {
    this.scheduled = false;
    const { lines } = this;
    for (let left = lines.length; left > 0; left--) {
      const line = lines[this.at]!;
      this.at = (this.at + 1) % lines.length;
      if (line.takeTurn()) break;
    }
    if (lines.some(isWaiting)) this.wake();
  };
}

function isWaiting(line: SliceLine): boolean {
  return line.length > 0;
}

export class SliceLine {
  private readonly turns: SliceTurns;
  /** Oldest first; at most one entry for each call. */
  private readonly waiting = new Set<SliceTaker>();

  constructor(turns: SliceTurns) {
    this.turns = turns;
  }

  get length(): number {
    return this.waiting.size;
  }

  /** To the end of the line, if it does not wait there already. */
  enter(taker: SliceTaker): void {
    this.waiting.add(taker);
    this.turns.wake();
  }

  /** One slice; false: nobody had anything to do. */
  takeTurn(): boolean {
    for (const taker of this.waiting) {
      this.waiting.delete(taker);
      if (taker.takeTurn()) return true;
    }
    return false;
  }
}
