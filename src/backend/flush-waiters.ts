// Who waits for a position of the row log to be in the tables, in the order of the positions.

export type FlushDone = (error: Error | null) => void;

export class FlushWaiters {
  private readonly waiting: { readonly position: number; readonly done: FlushDone }[] = [];

  add(position: number, done: FlushDone): void {
    this.waiting.push({ position, done });
  }

  flushed(position: number): void {
    while (this.waiting.length > 0 && this.waiting[0]!.position <= position) this.waiting.shift()!.done(null);
  }

  failed(error: Error): void {
    for (const waiter of this.waiting.splice(0)) waiter.done(error);
  }
}
