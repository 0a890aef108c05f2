// What the corruption checks work on: this member's own hashes and, by their peer listeners, those of the others.

import type { CompactionHash } from '../backend/backend.ts';
import { type Member as ClusterMember, hexId } from '../membership/cluster.ts';
import { AlarmAction, AlarmRequest, AlarmType } from '../proto/etcdserverpb.ts';
import { RequestField } from '../proto/internal-request.ts';
import { encode } from '../proto/message.ts';
import type { Logger } from '../telemetry/logger.ts';
import type { CorruptionSource, PeerHash } from './corruption.ts';
import { hashByRevision, type KeyHash, type KeyHashDone } from './key-hash.ts';
import type { Member } from './member.ts';
import { durationText } from './member-log.ts';
import { hashRequest, readHashAnswer } from './peer-hash.ts';
import { askPeer } from './peer-question.ts';
import type { Proposals } from './proposals.ts';
import type { ReadWaiter } from './read-queue.ts';

const CALLER = 'server/corruption-peers.ts';

export class CorruptionPeers implements CorruptionSource {
  readonly id: bigint;
  readonly logger: Logger;
  private readonly member: Member;
  private readonly proposals: Proposals;

  constructor(member: Member, proposals: Proposals) {
    this.member = member;
    this.proposals = proposals;
    this.id = member.parts.id;
    this.logger = member.parts.logger;
  }

  get isLeader(): boolean {
    return this.member.isLeader;
  }

  get isStopped(): boolean {
    return this.proposals.isStopped;
  }

  get timeoutText(): string {
    return durationText(this.member.requestTimeoutMs);
  }

  hash(revision: number, done: KeyHashDone): void {
    hashByRevision(this.member, revision, done);
  }

  compactionHashes(): readonly CompactionHash[] {
    return this.member.parts.compactionHashes.all();
  }

  read(waiter: ReadWaiter): void {
    this.member.read(waiter);
  }

  /** By the log, so that all members refuse from the same entry on. */
  raiseAlarm(memberId: bigint): void {
    const alarm = { action: AlarmAction.activate, memberId, alarm: AlarmType.corrupt };
    this.proposals.proposeOwn(RequestField.alarm, encode(AlarmRequest, alarm), (error) => {
      if (error === null) return;
      const fields = { 'alarmed-member-id': hexId(memberId), error: error.message };
      this.logger.warn(CALLER, 'failed to raise the CORRUPT alarm', fields);
    });
  }

  /** Of all other members at once; in the order of their ids. */
  peerHashes(revision: number, done: (answers: readonly PeerHash[]) => void): void {
    const { cluster } = this.member.parts;
    const peers = cluster.members().filter(({ id, peerUrls }) => id !== this.id && peerUrls.length > 0);
    const answers: (PeerHash | null)[] = peers.map(() => null);
    let waiting = peers.length;
    if (waiting === 0) done([]);
    for (const [at, peer] of peers.entries()) {
      this.ask(peer, revision, (answer) => {
        answers[at] = answer;
        if (--waiting === 0) done(answers as PeerHash[]);
      });
    }
  }

  private ask({ id, peerUrls }: ClusterMember, revision: number, done: (answer: PeerHash) => void): void {
    const { cluster, peerRequests } = this.member.parts;
    const request = hashRequest(cluster.id, revision, this.member.requestTimeoutMs);
    let lastError: string | null = null;
    askPeer<KeyHash>(peerRequests, peerUrls, {
      request: () => request,
      read: (answer, url) => {
        const result = typeof answer === 'string' ? answer : readHashAnswer(answer);
        if (typeof result !== 'string') return result;
        lastError = result;
        this.logger.warn(CALLER, 'failed hash kv request', {
          'local-member-id': hexId(this.id),
          'requested-revision': revision,
          'remote-peer-endpoint': url,
          error: result,
        });
        return null;
      },
      done: (hash) => done({ id, urls: peerUrls, hash, error: hash === null ? lastError : null }),
    });
  }
}
