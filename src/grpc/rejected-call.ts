// A request that is refused by its headers alone: answered by one HEADERS frame, whatever body follows is not read.

import type { RequestHead } from '../http2/request-head.ts';
import { Http2Stream } from '../http2/stream.ts';
import type { CallPlan, Rejection } from './call-plan.ts';
import type { GrpcConnection } from './connection.ts';
import { trailersOnly } from './response-blocks.ts';

export class RejectedCall extends Http2Stream {
  private readonly owner: GrpcConnection;
  private readonly plan: CallPlan;

  constructor(id: number, head: RequestHead, plan: CallPlan, owner: GrpcConnection) {
    super(id, head);
    this.owner = owner;
    this.plan = plan;
  }

  override onOpen(): void {
    const { httpStatus, status } = this.plan.rejection as Rejection;
    this.owner.answerWhole(this, trailersOnly(httpStatus, this.plan.contentType, status));
  }

  // The stream is closed when onOpen returns.
  override onData(): void {}
  override onTrailers(): void {}
  override onReset(): void {}
  override onWritable(): void {}
}
