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
  private waiting: Grantee[] = [];

  constructor(bytesMax: number) {
    this.bytesMax = bytesMax;
  }

  request(grantee: Grantee): void {
    if (grantee.awaitsGrant) return;
    grantee.awaitsGrant = true;
    this.waiting.push(grantee);
    this.serve();
  }

  /** The message is whole, or the call is over. */
  release(grantee: Grantee): void {
    if (grantee.grantedBytes === 0) return;
    this.bytes -= grantee.grantedBytes;
    grantee.grantedBytes = 0;
    assert(this.bytes >= 0, 'no more is given back than was granted');
    this.serve();
  }

  private serve(): void {
    while (this.waiting.length > 0) {
      const grantee = this.waiting[0]!;
      const wanted = grantee.wantedGrant();
      if (wanted > 0 && this.bytes > 0 && this.bytes + wanted > this.bytesMax) return;
      this.waiting.shift();
      grantee.awaitsGrant = false;
      if (wanted === 0 || !grantee.takeGrant(wanted)) continue;
      this.bytes += wanted;
      grantee.grantedBytes += wanted;
    }
  }
}
