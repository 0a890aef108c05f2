// What raft must not get from a peer, though its bytes are a message: positions that no member of this cluster can have come to, and
// proposals that no member can apply. Raft takes a higher term from anybody, and a leader appends whatever it is sent; etcd's members
// then end one after the other, at every start again. What is refused here is logged, once in a while, and lost: whoever proposed it
// hears of a time-out.

import { inapplicableReason } from '../apply/applicable.ts';
import { peerRefusalLogPauseMs, raftTermStepMax } from '../cluster-limits.ts';
import { parseMemberUrl } from '../config/member-url.ts';
import { hexId } from '../membership/cluster.ts';
import { parseVersion, type SemanticVersion } from '../membership/semantic-version.ts';
import { InternalRequest } from '../proto/internal-request.ts';
import { decode } from '../proto/message.ts';
import { ConfChange } from '../proto/raftpb.ts';
import { withoutV2 } from '../proto/v2-request.ts';
import { messageTypeName } from '../raft/message-type-name.ts';
import { ConfChangeType, type Entry, EntryType, type Message, MessageType, NO_BYTES } from '../raft/types.ts';
import { decodeMember } from '../snapshot/schema.ts';
import type { MemberParts } from './member-parts.ts';
import { isPromotion, isSoundChange } from './membership-change.ts';

const CALLER = 'server/message-check.ts';

export class MessageCheck {
  private readonly parts: MemberParts;
  private readonly serverVersion: SemanticVersion;
  private readonly request = new InternalRequest();
  private loggedMs = -Infinity;
  /** Messages and entries that were refused since then. */
  private refusedCount = 0;

  constructor(parts: MemberParts) {
    this.parts = parts;
    this.serverVersion = parseVersion(parts.serverVersion)!;
  }

  /** Whether raft may have it. Takes out of a message of proposals what cannot be applied. Hot: 0.1 us a put (message-check.bench.ts). */
  admits(message: Message): boolean {
    const reason = this.impossiblePosition(message);
    if (reason !== null) {
      this.refuse(message, reason);
      return false;
    }
    return message.type !== MessageType.prop || this.keepApplicable(message);
  }

  private impossiblePosition({ term, type, entries, snapshot }: Message): string | null {
    const { raft } = this.parts;
    if (raft.term > 0 && term - raft.term > raftTermStepMax) {
      return `term ${term} is too far beyond this member's, ${raft.term}, to be one of this cluster`;
    }
    // A member that starts takes the term of its log's last entry, too.
    if (type === MessageType.app) {
      for (let i = 0; i < entries.length; i++) {
        if (entries[i]!.term > term) return `an entry of term ${entries[i]!.term} in a message of term ${term}`;
      }
    }
    if (snapshot !== null && snapshot.meta.term > term) {
      return `a snapshot of term ${snapshot.meta.term} in a message of term ${term}`;
    }
    return null;
  }

  // --- Proposals ---

  private keepApplicable(message: Message): boolean {
    const { entries } = message;
    let kept: Entry[] | null = null;
    for (let i = 0; i < entries.length; i++) {
      const reason = this.reasonAgainst(entries[i]!);
      if (reason === null) kept?.push(entries[i]!);
      else {
        kept ??= entries.slice(0, i);
        this.refuse(message, `a proposal that no member can apply: ${reason}`);
      }
    }
    if (kept === null) return true;
    message.entries = kept;
    return kept.length > 0;
  }

  /** As state-machine.ts reads an entry that is committed. */
  private reasonAgainst({ type, data }: Entry): string | null {
    if (type !== EntryType.normal) return changeRefusal(type, data);
    if (data.length === 0) return null;
    const { request, serverVersion } = this;
    if (!request.parse(data, 0, data.length)) return 'it is no InternalRaftRequest';
    if (!request.isOfV2) return inapplicableReason(request, data, serverVersion);
    const ofToday = withoutV2(data);
    if (ofToday === null || !request.parse(ofToday, 0, ofToday.length)) return 'it is a request of the v2 API';
    return inapplicableReason(request, ofToday, serverVersion);
  }

  // --- The log ---

  private refuse({ from, type, term }: Message, error: string): void {
    const { logger, nowMs, id } = this.parts;
    this.refusedCount++;
    const now = nowMs();
    if (now - this.loggedMs < peerRefusalLogPauseMs) return;
    logger.warn(CALLER, 'rejected what a peer sent', {
      'local-member-id': hexId(id),
      'remote-peer-id': hexId(from),
      'message-type': messageTypeName(type),
      term,
      error,
      'rejected-since-last-line': this.refusedCount,
    });
    this.loggedMs = now;
    this.refusedCount = 0;
  }
}

/** Null, or why no member can apply a change of the membership. */
function changeRefusal(type: EntryType, data: Buffer): string | null {
  if (type !== EntryType.confChange) return 'it is a ConfChangeV2, which members of etcd do not propose';
  const change = decode(ConfChange, data);
  if (change === undefined) return 'it is no ConfChange';
  const { type: changeType = 0, nodeId = 0n, context = NO_BYTES } = change;
  if (!isSoundChange(changeType, nodeId, context)) return 'it changes the membership by no member';
  if (changeType === ConfChangeType.removeNode || isPromotion(context)) return null;
  // etcd's members panic at what are no URLs, which its own API lets through.
  const { peerUrls } = decodeMember(context)!;
  const areUrls = peerUrls.length > 0 && peerUrls.every((url) => parseMemberUrl(url).ok);
  return areUrls ? null : 'it gives a member what are no peer URLs';
}
