package mqlog.interop;

import java.io.PrintStream;
import java.util.ArrayList;
import java.util.List;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageDecoder;
import org.apache.rocketmq.common.message.MessageExt;
import org.apache.rocketmq.common.message.MessageExtBatch;
import org.apache.rocketmq.store.AppendMessageResult;
import org.apache.rocketmq.store.DefaultMessageStore;
import org.apache.rocketmq.store.PutMessageResult;

/** Puts random messages and prints one line for each that the store acknowledged. */
final class Writer {
    private final DefaultMessageStore store;
    private final PrintStream out;

    Writer(DefaultMessageStore store, PrintStream out) {
        this.store = store;
        this.out = out;
    }

    void write(long seed, int count) throws Exception {
        Drafts drafts = new Drafts(seed);
        for (int left = count; left > 0; ) {
            List<Draft> unit = drafts.next(left);
            put(unit);
            left -= unit.size();
        }
        out.flush();
    }

    private void put(List<Draft> unit) throws Exception {
        PutMessageResult result;
        // A machine that is short of time or disk makes the store refuse for a while, which proves nothing about its files.
        for (int tries = 0; ; tries++) {
            result = unit.size() == 1 ? putOne(unit.get(0)) : putBatch(unit);
            // The second one is spelled OS_PAGECACHE_BUSY in 4.9.8 and OS_PAGE_CACHE_BUSY in 5.3.3.
            String status = result.getPutMessageStatus().name();
            if (tries == 200 || !status.equals("SERVICE_NOT_AVAILABLE") && !status.startsWith("OS_PAGE")) {
                break;
            }
            store.getRunningFlags().getAndMakeDiskOK();
            Thread.sleep(20);
        }
        if (!result.isOk()) {
            throw new IllegalStateException("not stored: " + result.getPutMessageStatus());
        }
        acknowledge(unit, result.getAppendMessageResult());
    }

    private PutMessageResult putOne(Draft draft) {
        MessageExt message = Release.newMessage();
        fill(message, draft);
        message.setBody(draft.body);
        message.setFlag(draft.flag);
        message.setPreparedTransactionOffset(draft.preparedTransactionOffset);
        draft.properties.forEach((name, value) -> MessageAccess.put(message, name, value));
        return Release.put(store, message, MessageDecoder.messageProperties2String(message.getProperties()));
    }

    private PutMessageResult putBatch(List<Draft> unit) {
        List<Message> messages = new ArrayList<>();
        for (Draft draft : unit) {
            // The other constructors add the property WAIT.
            Message message = new Message();
            message.setTopic(draft.topic);
            message.setBody(draft.body);
            message.setFlag(draft.flag);
            draft.properties.forEach((name, value) -> MessageAccess.put(message, name, value));
            messages.add(message);
        }
        MessageExtBatch batch = new MessageExtBatch();
        fill(batch, unit.get(0));
        batch.setBody(MessageDecoder.encodeMessages(messages));
        return store.putMessages(batch);
    }

    private static void fill(MessageExt message, Draft draft) {
        message.setTopic(draft.topic);
        message.setQueueId(draft.queueId);
        message.setSysFlag(draft.sysFlag);
        message.setBornTimestamp(draft.bornMs);
        message.setBornHost(draft.bornHost);
        message.setStoreHost(draft.storeHost);
        message.setReconsumeTimes(draft.reconsumeTimes);
    }

    /** A batch is acknowledged with one size and as many message ids as it has messages; an id holds its record's offset. */
    private void acknowledge(List<Draft> unit, AppendMessageResult result) throws Exception {
        String[] ids = result.getMsgId().split(",");
        if (ids.length != unit.size()) {
            throw new IllegalStateException(ids.length + " message ids for " + unit.size() + " messages");
        }
        for (int i = 0; i < ids.length; i++) {
            long end = i + 1 < ids.length ? MessageDecoder.decodeMessageId(ids[i + 1]).getOffset()
                : result.getWroteOffset() + result.getWroteBytes();
            Draft.Place place = new Draft.Place();
            place.logOffset = MessageDecoder.decodeMessageId(ids[i]).getOffset();
            place.recordBytes = end - place.logOffset;
            place.queueOffset = result.getLogicsOffset() + i;
            place.storeMs = result.getStoreTimestamp();
            place.messageId = ids[i];
            out.println(unit.get(i).acknowledged(place));
        }
    }
}
