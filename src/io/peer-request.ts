// What the member asks other members beside raft's own traffic, in types alone: io/peer-client.ts sends it, a simulated network
// may. Here because src/io may not look up at src/peer, whose peer-transport.ts shows these types to everybody else.

/** A request to a member's peer listener beside raft's own traffic. */
export interface PeerRequest {
  readonly method: 'GET' | 'POST';
  /** With a leading slash. */
  readonly path: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: Buffer;
  readonly timeoutMs?: number;
  /** When it may be larger than peerAnswerBytesMax. */
  readonly answerBytesMax?: number;
  /** It does harm when it comes twice: never sent again by itself. */
  readonly onlyOnce?: boolean;
}

export interface PeerAnswer {
  readonly status: number;
  /** Lower-case names. */
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
  readonly body: Buffer;
}

/** Sends such requests: io/peer-client.ts, or a simulated network. */
export interface PeerRequests {
  /** Asks the member at `url` (a peer URL). `done` once, in a later turn. */
  request(url: string, request: PeerRequest, done: (error: Error | null, answer: PeerAnswer | null) => void): void;
}
