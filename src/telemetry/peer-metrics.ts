// The network metrics of one peer, as etcd's rafthttp labels them. The families are NetworkMetrics'; a series begins when it is first
// counted in, as in etcd, and its cell is kept: the bytes are counted once a turn.

import type { Cell, CellFamily } from './exposition.ts';
import type { NetworkMetrics } from './member-metrics.ts';

export class PeerMetrics {
  readonly #network: NetworkMetrics;
  readonly #local: string;
  readonly #remote: string;
  #sent: Cell | null = null;
  #received: Cell | null = null;

  /** Ids in hexadecimal. */
  constructor(network: NetworkMetrics, local: string, remote: string) {
    this.#network = network;
    this.#local = local;
    this.#remote = remote;
  }

  activated(): void {
    this.#network.activePeers.with(this.#local, this.#remote).value++;
  }

  deactivated(): void {
    this.#network.activePeers.with(this.#local, this.#remote).value--;
    this.#network.disconnectedPeers.with(this.#local, this.#remote).value++;
  }

  /** What was active is counted elsewhere from now on. */
  handedOver(): void {
    this.#network.activePeers.with(this.#local, this.#remote).value--;
  }

  sent(bytes: number): void {
    this.#sent ??= this.#network.peerSentBytes.with(this.#remote);
    this.#sent.value += bytes;
  }

  received(bytes: number): void {
    this.#received ??= this.#network.peerReceivedBytes.with(this.#remote);
    this.#received.value += bytes;
  }

  sendFailed(): void {
    this.#count(this.#network.peerSentFailures);
  }

  roundTrip(seconds: number): void {
    this.#network.peerRoundTrip.with(this.#remote).observe(seconds);
  }

  snapshotSendBegan(): void {
    this.#count(this.#network.snapshotSendInflights);
  }

  /** Null: it failed. */
  snapshotSendEnded(seconds: number | null): void {
    this.#network.snapshotSendInflights.with(this.#remote).value--;
    if (seconds === null) {
      this.#count(this.#network.snapshotSendFailures);
      return;
    }
    this.#count(this.#network.snapshotSendSuccess);
    this.#network.snapshotSendDuration.with(this.#remote).observe(seconds);
  }

  snapshotReceiveBegan(): void {
    this.#count(this.#network.snapshotReceiveInflights);
  }

  /** Null: it failed. */
  snapshotReceiveEnded(seconds: number | null): void {
    this.#network.snapshotReceiveInflights.with(this.#remote).value--;
    if (seconds === null) {
      this.#count(this.#network.snapshotReceiveFailures);
      return;
    }
    this.#count(this.#network.snapshotReceiveSuccess);
    this.#network.snapshotReceiveDuration.with(this.#remote).observe(seconds);
  }

  #count(family: CellFamily): void {
    family.with(this.#remote).value++;
  }
}
