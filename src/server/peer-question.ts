// A question to one member, beside raft's own traffic: asked at one of its peer URLs after the other until one gives an answer that says
// something, as etcd asks. Those of a member that starts go to all URLs at once (remote-cluster.ts).

import type { PeerAnswer, PeerRequest, PeerRequests } from '../peer/peer-transport.ts';

export interface PeerQuestion<T> {
  /** Made for each URL anew: its time limit may be what is left. */
  request(): PeerRequest;
  /** What the answer says, or the text of the error in its place; null: the next URL is asked. */
  read(answer: PeerAnswer | string, url: string): T | null;
  /** Once; null when no URL has answered. */
  done(result: T | null): void;
  /** True: whatever still comes is not read, and done() is not called any more. */
  isOver?(): boolean;
}

/** `done` comes in this turn when there are no URLs. */
export function askPeer<T extends NonNullable<unknown>>(
  requests: PeerRequests,
  urls: readonly string[],
  question: PeerQuestion<T>,
): void {
  askAt(requests, urls, 0, question);
}

function askAt<T>(requests: PeerRequests, urls: readonly string[], at: number, question: PeerQuestion<T>): void {
  const url = urls[at];
  if (url === undefined) {
    question.done(null);
    return;
  }
  requests.request(url, question.request(), (error, answer) => {
    if (question.isOver?.() === true) return;
    const result = question.read(answer ?? error?.message ?? 'no answer', url);
    if (result === null) askAt(requests, urls, at + 1, question);
    else question.done(result);
  });
}
