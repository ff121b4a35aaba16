package mqlog.clients;

import com.alibaba.fastjson.JSONArray;
import com.alibaba.fastjson.JSONObject;
import java.nio.charset.StandardCharsets;
import java.util.List;
import java.util.Map;
import java.util.zip.CRC32;
import org.apache.rocketmq.client.exception.MQBrokerException;
import org.apache.rocketmq.client.exception.MQClientException;
import org.apache.rocketmq.client.producer.SendResult;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageExt;
import org.apache.rocketmq.common.message.MessageQueue;

/** Messages, results and failures as JSON. */
final class Messages {
    /** So much of a body is shown as text. */
    private static final int SHOWN_BYTES = 64;

    private Messages() {}

    /** A message to send: "text" filled up to "size" bytes, "tags", "keys", "properties", "flag". */
    static Message draft(String topic, JSONObject draft) {
        byte[] body = body(draft.getString("text"), draft.getIntValue("size"));
        Message message = new Message(topic, draft.getString("tags"), draft.getString("keys"), draft.getIntValue("flag"), body, true);
        JSONObject properties = draft.getJSONObject("properties");
        if (properties != null) {
            for (Map.Entry<String, Object> property : properties.entrySet()) {
                message.putUserProperty(property.getKey(), (String) property.getValue());
            }
        }
        return message;
    }

    /** The text, filled up with bytes that no compression makes shorter; the suite knows the same ones. */
    static byte[] body(String text, int size) {
        byte[] bytes = text.getBytes(StandardCharsets.UTF_8);
        byte[] body = java.util.Arrays.copyOf(bytes, Math.max(bytes.length, size));
        long state = body.length;
        for (int i = bytes.length; i < body.length; i++) {
            state = state * 6364136223846793005L + 1442695040888963407L;
            body[i] = (byte) (state >>> 56);
        }
        return body;
    }

    static JSONObject queue(MessageQueue queue) {
        return new JSONObject().fluentPut("topic", queue.getTopic()).fluentPut("broker", queue.getBrokerName())
            .fluentPut("queue", queue.getQueueId());
    }

    static JSONObject sent(SendResult result) {
        return new JSONObject().fluentPut("status", result.getSendStatus().name()).fluentPut("msg_id", result.getMsgId())
            .fluentPut("offset_msg_id", result.getOffsetMsgId()).fluentPut("queue", result.getMessageQueue().getQueueId())
            .fluentPut("offset", result.getQueueOffset());
    }

    static JSONObject received(MessageExt message) {
        byte[] body = message.getBody();
        CRC32 crc = new CRC32();
        crc.update(body);
        return new JSONObject().fluentPut("at", System.currentTimeMillis()).fluentPut("topic", message.getTopic())
            .fluentPut("queue", message.getQueueId()).fluentPut("offset", message.getQueueOffset())
            .fluentPut("text", new String(body, 0, Math.min(body.length, SHOWN_BYTES), StandardCharsets.UTF_8))
            .fluentPut("size", body.length).fluentPut("crc", crc.getValue()).fluentPut("flag", message.getFlag())
            .fluentPut("tags", message.getTags()).fluentPut("keys", message.getKeys())
            .fluentPut("properties", message.getProperties()).fluentPut("msg_id", message.getMsgId())
            .fluentPut("stored_crc", message.getBodyCRC()).fluentPut("born", message.getBornTimestamp())
            .fluentPut("stored", message.getStoreTimestamp())
            .fluentPut("tries", message.getReconsumeTimes());
    }

    static JSONArray received(List<MessageExt> messages) {
        JSONArray all = new JSONArray();
        for (MessageExt message : messages) {
            all.add(received(message));
        }
        return all;
    }

    /** "error", and "code" where the broker or the client gave one. */
    static JSONObject failure(Throwable failure) {
        JSONObject told = new JSONObject().fluentPut("error", failure.toString());
        for (Throwable cause = failure; cause != null; cause = cause.getCause()) {
            if (cause instanceof MQBrokerException) {
                return told.fluentPut("code", ((MQBrokerException) cause).getResponseCode()).fluentPut("by", "broker");
            }
            if (cause instanceof MQClientException && cause.getCause() == null) {
                return told.fluentPut("code", ((MQClientException) cause).getResponseCode()).fluentPut("by", "client");
            }
        }
        return told;
    }
}
