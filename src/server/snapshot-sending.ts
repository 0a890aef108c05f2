// A snapshot on its way to a member that is too far behind the log: raft's message, filled in with what the database says at one commit,
// and behind it the database as a bbolt file without a hash, both of that very commit. The transport pulls it as the member takes it.

import {
  type SnapshotReader,
  type SnapshotSink,
  type SnapshotState,
  snapshotTrailer,
} from '../backend/snapshot-source.ts';
import { hexId } from '../membership/cluster.ts';
import type { SnapshotBody } from '../peer/peer-transport.ts';
import type { Message, Snapshot } from '../raft/types.ts';
import { decodeConfState } from '../snapshot/schema.ts';
import { encodeV2Membership } from '../snapshot/v2-membership.ts';
import type { LogFields } from '../telemetry/logger.ts';
import { durationText, humanBytes } from './member-log.ts';
import type { MemberParts } from './member-parts.ts';

const CALLER = 'server/snapshot-sending.ts';

export class SnapshotSending implements SnapshotBody, SnapshotSink {
  fileBytes = 0;
  sink: SnapshotBody['sink'] = null;
  /** Entries from here on must be there when it has arrived. */
  readonly index: number;
  private readonly parts: MemberParts;
  private readonly message: Message;
  private readonly ended: (sending: SnapshotSending, isSent: boolean) => void;
  private readonly startMs: number;
  private reader: SnapshotReader | null = null;
  /** The transport has it: it hears of the end, and tells raft. */
  private isHandedOver = false;
  private isOver = false;
  private failure: Error | null = null;

  /** `ended` is called once; of one that the transport never got with what raft has to hear. */
  constructor(parts: MemberParts, message: Message, ended: (sending: SnapshotSending, isSent: boolean) => void) {
    this.parts = parts;
    this.message = message;
    this.ended = ended;
    // Everything applied by now is flushed before the commit is pinned.
    this.index = parts.backend.consistentIndex;
    this.startMs = parts.nowMs();
  }

  start(): void {
    this.reader = this.parts.backend.snapshot(this, snapshotTrailer.none);
  }

  get wasHandedOver(): boolean {
    return this.isHandedOver;
  }

  // --- from the database ---

  started(fileBytes: number, state: SnapshotState): void {
    const { logger, transport } = this.parts;
    this.reader?.pause();
    this.fileBytes = fileBytes;
    const snapshot = snapshotOf(state);
    if (snapshot === null) {
      this.reader?.cancel();
      this.end(new Error('its database does not tell the membership'));
      return;
    }
    this.isHandedOver = true;
    transport.sendSnapshot({ ...this.message, snapshot }, this);
    logger.info(CALLER, 'sending merged snapshot', this.fields);
  }

  chunk(bytes: Buffer): boolean {
    return this.sink!.chunk(bytes);
  }

  done(error: Error | null): void {
    this.end(error);
  }

  private end(error: Error | null): void {
    if (this.isOver) return;
    this.isOver = true;
    this.failure = error;
    const { logger, nowMs } = this.parts;
    if (error === null) {
      logger.info(CALLER, 'sent merged snapshot', { ...this.fields, took: durationText(nowMs() - this.startMs) });
    } else logger.warn(CALLER, 'failed to send database snapshot', { ...this.fields, error });
    this.ended(this, error === null);
    this.sink?.done(error);
  }

  private get fields(): LogFields {
    return {
      from: hexId(this.parts.id),
      to: hexId(this.message.to),
      bytes: this.fileBytes,
      size: humanBytes(this.fileBytes),
    };
  }

  // --- from the transport ---

  resume(): void {
    if (this.failure !== null) this.sink?.done(this.failure);
    else this.reader?.resume();
  }

  cancel(): void {
    this.reader?.cancel();
    this.sink = null;
    this.end(new Error('the transfer broke off'));
  }

  /** There is no time left. One that the member does not take is the transport's to give up. */
  stop(): void {
    this.reader?.cancel();
    this.end(new Error('the server is stopping'));
  }
}

/** Null: the state is of no cluster. */
function snapshotOf(state: SnapshotState): Snapshot | null {
  const confState = decodeConfState(state.confState);
  const data = encodeV2Membership(state);
  if (confState === null || data === null || state.consistentIndex === 0) return null;
  return { meta: { confState, index: state.consistentIndex, term: state.term }, data };
}
