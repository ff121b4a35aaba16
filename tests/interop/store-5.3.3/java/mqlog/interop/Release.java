package mqlog.interop;

import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import org.apache.rocketmq.common.BrokerConfig;
import org.apache.rocketmq.common.message.MessageExt;
import org.apache.rocketmq.common.message.MessageExtBrokerInner;
import org.apache.rocketmq.store.DefaultMessageStore;
import org.apache.rocketmq.store.PutMessageResult;
import org.apache.rocketmq.store.config.MessageStoreConfig;
import org.apache.rocketmq.store.queue.CqUnit;
import org.apache.rocketmq.store.stats.BrokerStatsManager;

/** What differs between the versions of RocketMQ: this is 5.3.3. */
final class Release {
    /** Records of the second version hold topics of more than 127 characters. */
    static final boolean LONG_TOPICS = true;

    private Release() {
    }

    /** Writes the record CRC, and refuses records without it or with a wrong one when it recovers. */
    static void recordCrc(MessageStoreConfig config, boolean on) {
        config.setEnabledAppendPropCRC(on);
        config.setForceVerifyPropCRC(on);
    }

    static DefaultMessageStore create(MessageStoreConfig config) throws Exception {
        return new DefaultMessageStore(config, new BrokerStatsManager("interop", false), null, new BrokerConfig(),
            new ConcurrentHashMap<>());
    }

    static MessageExt newMessage() {
        return new MessageExtBrokerInner();
    }

    static PutMessageResult put(DefaultMessageStore store, MessageExt message, String properties) {
        MessageExtBrokerInner inner = (MessageExtBrokerInner) message;
        inner.setPropertiesString(properties);
        inner.setTagsCode(MessageExtBrokerInner.tagsString2tagsCode(null, message.getTags()));
        return store.putMessage(inner);
    }

    static Map<String, ? extends Map<Integer, ?>> queues(DefaultMessageStore store) {
        return store.getConsumeQueueTable();
    }

    /** The entry's log offset, record size and tags code (of its extension unit, where it has one), or null. */
    static long[] entry(DefaultMessageStore store, String topic, int queueId, long index) {
        CqUnit unit = store.findConsumeQueue(topic, queueId).get(index);
        if (unit == null) {
            return null;
        }
        return new long[] {unit.getPos(), unit.getSize(), unit.getValidTagsCodeAsLong()};
    }
}
