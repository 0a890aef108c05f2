// The two streams between peers: one for appends in their short form, one for everything else. Each pair of members has both, in
// both directions.

import type { NodeId } from '../raft/types.ts';
import { AppendStreamDecoder, AppendStreamEncoder } from './append-stream.ts';
import { MessageStreamDecoder, MessageStreamEncoder, type StreamEncoder } from './message-stream.ts';
import type { StreamDecoder } from './part-decoder.ts';

export interface StreamKind {
  /** As etcd logs it. */
  readonly name: string;
  /** What a line about a dropped message calls it. */
  readonly writerName: string;
  /** The reader's id follows. */
  readonly pathPrefix: string;
  encoder(): StreamEncoder;
  decoder(local: NodeId, remote: NodeId): StreamDecoder;
}

export const messageStream: StreamKind = {
  name: 'stream Message',
  writerName: 'streamMsg',
  pathPrefix: '/raft/stream/message/',
  encoder: () => new MessageStreamEncoder(),
  decoder: () => new MessageStreamDecoder(),
};

export const appendStream: StreamKind = {
  name: 'stream MsgApp v2',
  writerName: 'streamMsgAppV2',
  pathPrefix: '/raft/stream/msgapp/',
  encoder: () => new AppendStreamEncoder(),
  decoder: (local, remote) => new AppendStreamDecoder(local, remote),
};
