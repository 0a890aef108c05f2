// What a raft message from the network must be before raft gets it: sent by another member, which was not removed, and to this one.

import { messageTypeName } from '../raft/message-type-name.ts';
import { type Message, MessageType } from '../raft/types.ts';
import { removedSender } from './post-answer.ts';
import { idText, type TransportContext } from './transport-context.ts';

const CALLER = 'peer/inbox.ts';

/** Null, or why it is refused: etcd's words, with status 403. */
export function refusalOf(context: TransportContext, message: Message): string | null {
  const { logger, localText } = context;
  if (context.events.isRemoved(message.from)) {
    const fields = { 'local-member-id': localText, 'removed-member-id': idText(message.from) };
    logger.warn(CALLER, 'rejected Raft message from removed member', fields);
    return removedSender;
  }
  if (message.to !== context.localId) {
    const fields = { 'local-member-id': localText, 'mismatch-member-id': idText(message.to) };
    logger.warn(CALLER, 'rejected Raft message to mismatch member', fields);
    return 'cannot process message to mismatch member';
  }
  // Only what was passed on may come back: to who leads now, by who led when it was sent there. etcd refuses neither.
  const isPassedOn = message.type === MessageType.prop || message.type === MessageType.readIndex;
  if (message.from === context.localId && !isPassedOn) {
    logger.warn(CALLER, 'rejected Raft message in the name of this member', { 'local-member-id': localText });
    return 'cannot process message from this member';
  }
  return null;
}

/** A message of a stream. Hot. */
export function deliver(context: TransportContext, message: Message): void {
  // A snapshot without the database behind it is of no use; members send none.
  const error =
    message.type === MessageType.snap ? `${messageTypeName(message.type)} in a stream` : refusalOf(context, message);
  if (error === null) context.events.message(message);
  else context.logger.warn(CALLER, 'failed to process Raft message', { error });
}
