// Answers to peers that say no, as Go's http.Error and etcd's HTTPError write them.

import type { PeerExchange } from '../io/peer-exchange.ts';

type Headers = Readonly<Record<string, string>>;

export function answerError(exchange: PeerExchange, status: number, headers: Headers, text: string): void {
  const plain = { 'Content-Type': 'text/plain; charset=utf-8', 'X-Content-Type-Options': 'nosniff' };
  exchange.answer(status, { ...headers, ...plain }, `${text}\n`);
}

/** A raft message that this member does not take (inbox.ts): by 403 the sender knows that it was removed. */
export function answerRefusal(exchange: PeerExchange, headers: Headers, text: string): void {
  exchange.answer(403, { ...headers, 'Content-Type': 'application/json' }, JSON.stringify({ message: text }));
}
