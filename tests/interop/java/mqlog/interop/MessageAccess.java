package mqlog.interop;

import java.util.HashMap;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageAccessor;

/** Sets properties that RocketMQ keeps for itself too, as its broker does. */
final class MessageAccess {
    private MessageAccess() {
    }

    static void put(Message message, String name, String value) {
        if (message.getProperties() == null) {
            MessageAccessor.setProperties(message, new HashMap<>());
        }
        message.getProperties().put(name, value);
    }
}
