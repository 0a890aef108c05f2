// Raft's values as the texts that test-e2e/peers/harness/keelson-raft/text.go writes and reads, so that both sides' answers
// are compared as strings. The grammar stands there. Not for people: src/raft/describe.ts is.

import { toConfState } from '../raft/conf-change.ts';
import type { Progress } from '../raft/progress.ts';
import type { Raft } from '../raft/raft.ts';
import {
  type ConfState,
  type Entry,
  type HardState,
  type Message,
  MessageType,
  NO_BYTES,
  type NodeId,
  RaftState,
  type ReadState,
  type Snapshot,
  type SoftState,
} from '../raft/types.ts';

const messageNames: readonly string[] = Object.entries(MessageType)
  .sort((a, b) => a[1] - b[1])
  .map(([name]) => name);

/** What a command gave. */
export class Outcome {
  result = 'ok';
  softState: SoftState | null = null;
  hardState: HardState | null = null;
  snapshot: Snapshot | null = null;
  readonly reads: ReadState[] = [];
  readonly entries: Entry[] = [];
  readonly committed: Entry[] = [];
  readonly messages: Message[] = [];
  readonly after: Message[] = [];
  mustSync = false;

  /** The answer that the other side must give, with the state of the member after the command. */
  text(raft: Raft, hasReady: boolean): string {
    const messages = `${messagesText(this.messages)} then ${messagesText(this.after)}`;
    return [this.result, stateText(raft, hasReady), this.#readyText(), messages, flowText(raft)].join('\t');
  }

  #readyText(): string {
    let text = '';
    if (this.softState !== null) text += `soft=${this.softState.lead}/${this.softState.state} `;
    if (this.hardState !== null) text += `hard=${this.hardState.term}/${this.hardState.vote}/${this.hardState.commit} `;
    if (this.mustSync) text += 'sync ';
    for (const read of this.reads) text += `read=${read.index}/${dataText(read.context)} `;
    if (this.snapshot !== null) text += `snapshot=${snapshotText(this.snapshot)} `;
    return `${text}entries=${entriesText(this.entries)} committed=${entriesText(this.committed)}`;
  }
}

/** Everything but what flow control decides. */
function stateText(raft: Raft, hasReady: boolean): string {
  const { log, tracker } = raft;
  let text =
    `role=${raft.state} term=${raft.term} vote=${raft.vote} lead=${raft.lead} commit=${log.committed} applied=${log.applied}` +
    ` first=${log.firstIndex} stable=${log.stableIndex} last=${log.lastIndex} snapshot=${log.hasPendingSnapshot}` +
    ` elapsed=${raft.electionElapsed}/${raft.heartbeatElapsed}/${raft.randomizedElectionTimeout}` +
    ` transferee=${raft.leadTransferee} pendingConf=${raft.pendingConfIndex} uncommitted=${raft.uncommittedBytes}` +
    ` reads=${raft.pendingReads.length}/${raft.readOnly.count}` +
    ` votes=${tracker.countVotes(true)}/${tracker.countVotes(false)} ready=${hasReady} conf=${confText(toConfState(tracker.configuration))}`;
  if (raft.state !== RaftState.leader) return text;
  for (const one of tracker.all) {
    const isUnstable = one.id === raft.id && log.stableIndex < log.lastIndex;
    text += ` ${one.id}:${isUnstable ? 'unstable' : `${one.match}/${one.recentActive}/${one.isLearner}`}`;
  }
  return text;
}

/** How a leader sends to its followers. */
export function flowText(raft: Raft): string {
  if (raft.state !== RaftState.leader) return '';
  let text = '';
  for (const one of raft.tracker.peers) {
    const { count, full } = one.inflights;
    text += `${progressText(one)}:${count}${flag(full)}:${flag(one.canBumpCommit(raft.log.committed))} `;
  }
  return text;
}

/** As the command `flow` takes it. */
export function progressText(one: Progress): string {
  return `${one.id}:${one.state}:${one.next}:${flag(one.isPaused)}:${one.pendingSnapshot}`;
}

function flag(value: boolean): string {
  return value ? '1' : '0';
}

export function confText(conf: ConfState): string {
  const ids = (list: readonly NodeId[]): string => list.toSorted((a, b) => (a < b ? -1 : 1)).join(',');
  return [
    ids(conf.voters),
    ids(conf.votersOutgoing),
    ids(conf.learners),
    ids(conf.learnersNext),
    flag(conf.autoLeave),
  ].join('|');
}

/** 'p7~4096' is the token p7 padded with dots to 4096 bytes. */
export function paddedData(token: string, size: number): Buffer {
  return Buffer.from(token.padEnd(size, '.'));
}

export function dataText(data: Buffer): string {
  if (data.length === 0) return '-';
  if (data[0] !== 0x70) return `#${data.toString('hex')}`;
  const end = data.indexOf('.');
  return `${data.toString('latin1', 0, end < 0 ? data.length : end)}~${data.length}`;
}

function entriesText(entries: readonly Entry[]): string {
  let text = '[';
  for (const [i, entry] of entries.entries()) {
    text += `${i > 0 ? ',' : ''}${entry.term}/${entry.index}/${entry.type}/${dataText(entry.data)}`;
  }
  return `${text}]`;
}

function snapshotText(snapshot: Snapshot): string {
  const { term, index, confState } = snapshot.meta;
  return `${term}/${index}/${confText(confState)}/${dataText(snapshot.data)}`;
}

function messagesText(messages: readonly Message[]): string {
  return messages.map(messageText).join(';');
}

export function messageText(message: Message): string {
  let text = `${messageNames[message.type]} ${message.from}>${message.to}`;
  if (message.term !== 0) text += ` term=${message.term}`;
  if (message.logTerm !== 0) text += ` logTerm=${message.logTerm}`;
  if (message.index !== 0) text += ` index=${message.index}`;
  if (message.commit !== 0) text += ` commit=${message.commit}`;
  if (message.vote !== 0n) text += ` vote=${message.vote}`;
  if (message.reject) text += ' reject=1';
  if (message.rejectHint !== 0) text += ` hint=${message.rejectHint}`;
  if (message.context !== NO_BYTES && message.context.length > 0) text += ` context=${message.context.toString('hex')}`;
  if (message.entries.length > 0) text += ` entries=${entriesText(message.entries)}`;
  if (message.snapshot !== null) text += ` snapshot=${snapshotText(message.snapshot)}`;
  return text;
}
