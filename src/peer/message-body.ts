// The body of a post that is one raft message, taken whole.

import { peerBodySilenceMs, peerBodyTimeoutMs, peerMessageBytesMax } from '../cluster-limits.ts';
import type { PeerExchange } from '../io/peer-exchange.ts';
import type { UnfinishedBodies } from './unfinished-bodies.ts';

/** For which there was no room: the sender may try again. Else what it sent is at fault. */
export const tooManyUnfinished = 'too many bytes of unfinished messages';

/** `done` once: the body, or why there is none: it is too long, came too slowly, the connection broke, or others needed the room. */
export function readMessageBody(
  exchange: PeerExchange,
  bodies: UnfinishedBodies,
  done: (failure: string | null, body: Buffer | null) => void,
): void {
  const announced = Number(exchange.header('Content-Length') || Number.POSITIVE_INFINITY);
  let isOver = false;
  const finish = (failure: string | null): void => {
    if (isOver) return;
    isOver = true;
    clearTimeout(timer);
    const whole = failure === null ? body.take() : null;
    body.close();
    done(failure, whole);
  };
  const body = bodies.open(() => finish(tooManyUnfinished));
  const timer = setTimeout(() => finish('i/o timeout'), peerBodyTimeoutMs);
  exchange.receiveBody(peerBodySilenceMs, {
    chunk: (chunk) => {
      if (isOver) return true;
      if (body.length + chunk.length > peerMessageBytesMax) finish('http: request body too large');
      else body.append(chunk, announced);
      return true;
    },
    end: () => finish(null),
    broken: (error) => finish(error.message),
  });
}
