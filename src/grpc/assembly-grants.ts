// Receive window beyond the default for messages that do not fit in it. Each such message is granted what it lacks, but all
// of a connection together only a bound: the others wait their turn, so a client with a thousand large puts in flight is
// slowed down by flow control instead of filling our memory. First come, first served; the first always gets its grant.

import { assert } from '../base/assert.ts';

export interface Grantee {
  /** Bytes granted beyond the default and not yet given back. */
  grantedBytes: number;
  awaitsGrant: boolean;
  /** The call still wants it: sends the window update of `bytes`. False when there is no use any more. */
  takeGrant(bytes: number): boolean;
  /** Bytes that its message lacks beyond its window. */
  wantedGrant(): number;
}

export class AssemblyGrants {
  private readonly bytesMax: number;
  private bytes = 0;
  /** In the order that they came. */
  private readonly waiting = new Set<Grantee>();

  constructor(bytesMax: number) {
    this.bytesMax = bytesMax;
  }

  get waitingCount(): number {
    return this.waiting.size;
  }

  request(grantee: Grantee): void {
    if (grantee.awaitsGrant) return;
    grantee.awaitsGrant = true;
    this.waiting.add(grantee);
    this.serve();
  }

  /** The message is whole. */
  release(grantee: Grantee): void {
    if (grantee.grantedBytes === 0) return;
    this.giveBack(grantee);
    this.serve();
  }

  /** The call is over. One that waits still leaves at once: those in front of it may never get theirs. */
  leave(grantee: Grantee): void {
    if (grantee.awaitsGrant) this.waiting.delete(grantee);
    grantee.awaitsGrant = false;
    this.giveBack(grantee);
    this.serve();
  }

  private giveBack(grantee: Grantee): void {
    this.bytes -= grantee.grantedBytes;
    grantee.grantedBytes = 0;
    assert(this.bytes >= 0, 'no more is given back than was granted');
  }

  private serve(): void {
    for (const grantee of this.waiting) {
      const wanted = grantee.wantedGrant();
      if (wanted > 0 && this.bytes > 0 && this.bytes + wanted > this.bytesMax) return;
      this.waiting.delete(grantee);
      grantee.awaitsGrant = false;
      if (wanted === 0 || !grantee.takeGrant(wanted)) continue;
      this.bytes += wanted;
      grantee.grantedBytes += wanted;
    }
  }
}
