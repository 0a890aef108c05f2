// etcd's line about a unary call, "request stats" (v3rpc/interceptor.go): each call's at --log-level=debug, else a warning about one
// that took longer than --warning-unary-request-duration. Counts and sizes are told of Range, Put, DeleteRange and Txn alone; for all
// other methods they are -1 and there is no content, as in etcd.
//
//   answered by          request count       request size    response count   request content
//   Range                0                   the message's   count            in full
//   Put                  1                   the message's   0                value as its size
//   DeleteRange          0                   the message's   deleted          in full
//   Txn                  of the branch that  of its          0                values as their sizes
//                        was taken           operations
// A call that failed has a response of size 0; a failed Txn tells nothing of its request either.

import type { ServerCall } from '../grpc/call.ts';
import type { MessageBytes } from '../grpc/observer.ts';
import { DeleteRangeRequest, PutRequest, RangeRequest, TxnRequest } from '../proto/kv-request.ts';
import { durationText } from '../server/member-log.ts';
import { deleteText, putText, rangeText, txnText } from '../server/request-text.ts';
import { messagesIn, numberField } from '../server/response-text.ts';
import { formatLogTime, type Logger } from '../telemetry/logger.ts';

const CALLER = 'rpc/request-stats.ts';

/** Fields of etcd's messages: RangeResponse.count, DeleteRangeResponse.deleted, TxnResponse.succeeded, TxnRequest's branches. */
const COUNT = 4;
const DELETED = 2;
const SUCCEEDED = 2;
const SUCCESS = 2;
const FAILURE = 3;

interface Facts {
  readonly requestCount: number;
  readonly requestBytes: number;
  readonly responseCount: number;
  readonly responseBytes: number;
  readonly content: string;
}

const NOTHING: Facts = { requestCount: -1, requestBytes: -1, responseCount: -1, responseBytes: -1, content: '' };

export class RequestStats {
  private readonly logger: Logger;
  private readonly wallMs: () => number;
  /** Calls that took longer are to be told. */
  readonly slowMs: number;
  private readonly level: 'debug' | 'warn';

  /** `warningMs` is --warning-unary-request-duration. */
  constructor(logger: Logger, warningMs: number, wallMs: () => number) {
    this.logger = logger;
    this.wallMs = wallMs;
    this.level = logger.enabled('debug') ? 'debug' : 'warn';
    this.slowMs = this.level === 'debug' ? -1 : warningMs;
  }

  /** `request` null: its handler has not kept it. `answer` null: the call failed. */
  tell(call: ServerCall, durationMs: number, request: MessageBytes | null, answer: MessageBytes | null): void {
    const facts = request === null ? NOTHING : factsOf(call.method.path, request, answer);
    this.logger.log(this.level, CALLER, 'request stats', {
      'start time': formatLogTime(this.wallMs() - durationMs),
      'time spent': durationText(durationMs),
      remote: call.connection.remoteAddress,
      'response type': call.method.path,
      'request count': facts.requestCount,
      'request size': facts.requestBytes,
      'response count': facts.responseCount,
      'response size': facts.responseBytes,
      'request content': facts.content,
    });
  }
}

function factsOf(path: string, { buffer, start, end }: MessageBytes, answer: MessageBytes | null): Facts {
  const responseBytes = answer === null ? 0 : (answer.totalBytes ?? answer.end - answer.start);
  const responseNumber = (field: number): number =>
    answer === null ? 0 : numberField(answer.buffer, answer.start, answer.end, field);
  const plain = { requestCount: 0, requestBytes: end - start, responseCount: 0, responseBytes };
  switch (path) {
    case '/etcdserverpb.KV/Range': {
      const range = new RangeRequest();
      const content = range.parse(buffer, start, end) ? rangeText(range) : '';
      return { ...plain, responseCount: responseNumber(COUNT), content };
    }
    case '/etcdserverpb.KV/Put': {
      const put = new PutRequest();
      return { ...plain, requestCount: 1, content: put.parse(buffer, start, end) ? putText(put) : '' };
    }
    case '/etcdserverpb.KV/DeleteRange': {
      const remove = new DeleteRangeRequest();
      const content = remove.parse(buffer, start, end) ? deleteText(remove) : '';
      return { ...plain, responseCount: responseNumber(DELETED), content };
    }
    case '/etcdserverpb.KV/Txn': {
      const txn = new TxnRequest();
      if (answer === null || !txn.parse(buffer, start, end)) return { ...plain, requestBytes: 0, content: '' };
      const taken = messagesIn(buffer, start, end, responseNumber(SUCCEEDED) === 0 ? FAILURE : SUCCESS);
      return { ...plain, requestCount: taken.count, requestBytes: taken.bytes, content: txnText(txn) };
    }
    default:
      return NOTHING;
  }
}
