// Short texts of raft's values, for log lines and the transcripts of the scripted tests. Ids are in hexadecimal, as in
// etcd.
//
//   message   1->2 app term=2 prev=1/10 commit=9 entries=[2/11 "x", 2/12 ""]      prev is the term/index before the entries
//   progress  StateReplicate match=10 next=13 learner paused inactive inflight=1      etcd's own words

import { ProgressState, type ProgressStatus } from './progress.ts';
import type { Ready, Status } from './raw-node.ts';
import {
  ConfChangeTransition,
  ConfChangeType,
  type ConfChangeV2,
  type ConfState,
  type Entry,
  EntryType,
  type Message,
  MessageType,
  NONE,
  type NodeId,
  RaftState,
  type Snapshot,
} from './types.ts';

export function hex(id: NodeId): string {
  return id.toString(16);
}

function nameOf(names: Readonly<Record<string, number>>, value: number): string {
  for (const [name, one] of Object.entries(names)) if (one === value) return name;
  return `unknown ${value}`;
}

export function describeState(state: RaftState): string {
  return nameOf(RaftState, state);
}

const PROGRESS_STATES: Readonly<Record<ProgressState, string>> = {
  [ProgressState.probe]: 'StateProbe',
  [ProgressState.replicate]: 'StateReplicate',
  [ProgressState.snapshot]: 'StateSnapshot',
};

export function progressStateName(state: ProgressState): string {
  return PROGRESS_STATES[state];
}

export function describeConfState(state: ConfState): string {
  const list = (ids: readonly NodeId[]): string => `(${ids.map(hex).join(' ')})`;
  let text = `voters=${list(state.voters)}`;
  if (state.votersOutgoing.length > 0) text += `&&${list(state.votersOutgoing)}`;
  if (state.learners.length > 0) text += ` learners=${list(state.learners)}`;
  if (state.learnersNext.length > 0) text += ` learners_next=${list(state.learnersNext)}`;
  if (state.autoLeave) text += ' autoleave';
  return text;
}

/** As Go prints it: names of the protocol's values, ids in decimal. */
export function describeConfChange({ transition, changes, context }: ConfChangeV2): string {
  let text = `transition:ConfChangeTransition${pascal(nameOf(ConfChangeTransition, transition))}`;
  for (const { type, nodeId } of changes) {
    text += ` changes:{type:ConfChange${pascal(nameOf(ConfChangeType, type))} node_id:${nodeId}}`;
  }
  return context.length === 0 ? text : `${text} context:${JSON.stringify(context.toString())}`;
}

function pascal(name: string): string {
  return name[0]!.toUpperCase() + name.slice(1);
}

export function describeEntry(entry: Entry): string {
  const kind = entry.type === EntryType.normal ? '' : `${nameOf(EntryType, entry.type)} `;
  return `${entry.term}/${entry.index} ${kind}${JSON.stringify(entry.data.toString())}`;
}

function describeSnapshot(snapshot: Snapshot): string {
  return `${snapshot.meta.term}/${snapshot.meta.index} ${describeConfState(snapshot.meta.confState)}`;
}

export function describeMessage(message: Message): string {
  let text = `${hex(message.from)}->${hex(message.to)} ${nameOf(MessageType, message.type)}`;
  if (message.term !== 0) text += ` term=${message.term}`;
  switch (message.type) {
    case MessageType.app:
      text += ` prev=${message.logTerm}/${message.index}`;
      break;
    case MessageType.vote:
    case MessageType.preVote:
      text += ` last=${message.logTerm}/${message.index}`;
      break;
    case MessageType.appResp:
      text += message.reject
        ? ` rejects=${message.index} hint=${message.logTerm}/${message.rejectHint}`
        : ` index=${message.index}`;
      break;
    case MessageType.readIndexResp:
      text += ` index=${message.index}`;
      break;
    default:
      if (message.reject) text += ' rejects';
  }
  if (message.commit !== 0) text += ` commit=${message.commit}`;
  if (message.entries.length > 0) text += ` entries=[${message.entries.map(describeEntry).join(', ')}]`;
  if (message.snapshot !== null) text += ` snapshot=${describeSnapshot(message.snapshot)}`;
  if (message.context.length > 0) text += ` context=${describeContext(message)}`;
  return text;
}

function describeContext(message: Message): string {
  const isPosition = message.type === MessageType.heartbeat || message.type === MessageType.heartbeatResp;
  return isPosition && message.context.length === 8
    ? String(message.context.readBigUInt64LE(0))
    : message.context.toString();
}

/** One line a fact. */
export function describeReady(ready: Ready): string[] {
  const lines = [`ready sync=${ready.mustSync} sequence=${ready.sequence}`];
  const { softState, hardState, snapshot } = ready;
  if (softState !== null) lines.push(`  state ${describeState(softState.state)} lead=${hex(softState.lead)}`);
  if (hardState !== null) {
    const vote = hardState.vote === NONE ? '' : ` vote=${hex(hardState.vote)}`;
    lines.push(`  hard state term=${hardState.term}${vote} commit=${hardState.commit}`);
  }
  for (const read of ready.readStates) lines.push(`  read ${read.context.toString()} at ${read.index}`);
  if (snapshot !== null) lines.push(`  snapshot ${describeSnapshot(snapshot)}`);
  for (const entry of ready.entries) lines.push(`  entry ${describeEntry(entry)}`);
  for (const entry of ready.committedEntries) lines.push(`  committed ${describeEntry(entry)}`);
  for (const message of ready.messages) lines.push(`  send ${describeMessage(message)}`);
  for (const message of ready.messagesAfterPersist) lines.push(`  then ${describeMessage(message)}`);
  return lines;
}

export function progressText(progress: ProgressStatus): string {
  let text = `${progressStateName(progress.state)} match=${progress.match} next=${progress.next}`;
  if (progress.isLearner) text += ' learner';
  if (progress.paused) text += ' paused';
  if (progress.pendingSnapshot > 0) text += ` pendingSnap=${progress.pendingSnapshot}`;
  if (!progress.recentActive) text += ' inactive';
  if (progress.inflightCount > 0) text += ` inflight=${progress.inflightCount}${progress.inflightFull ? '[full]' : ''}`;
  return text;
}

export function describeStatus(status: Status): string {
  let text = `${describeState(status.state)} term=${status.term} lead=${hex(status.lead)} vote=${hex(status.vote)}`;
  text += ` last=${status.lastIndex} commit=${status.commit} applied=${status.applied}`;
  if (status.leadTransferee !== NONE) text += ` transfers to ${hex(status.leadTransferee)}`;
  return `${text} ${describeConfState(status.confState)}`;
}
